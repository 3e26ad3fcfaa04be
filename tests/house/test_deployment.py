"""The units and the compose file of docs/deploy hold, and what they start really starts."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))


def read(unit: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # names of systemd tell cases apart
    parser.read(unit)
    return parser


def started_by(name: str) -> list[str]:
    """Words of the command that a unit, or a service of the compose file, starts, after `wm`."""
    if name.endswith(".service"):
        return shlex.split(read(DEPLOY / name)["Service"]["ExecStart"])[1:]
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][name]["command"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_restarts_by_itself_and_gains_no_rights(unit):
    service = read(unit)["Service"]
    assert service["Restart"] in ("always", "on-failure")
    assert service["NoNewPrivileges"] == "yes"
    assert service["User"] != "root"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_say_about_a_unit(unit, tmp_path):
    """Where systemd is installed; only that files of another machine are absent is put up with."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:  # the other tests of this file hold everywhere
        return
    for other in UNITS:
        (tmp_path / other.name).write_text(other.read_text())
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / unit.name)], capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert [line for line in said if "is not executable" not in line] == []


def test_every_launch_argument_of_the_robots_unit_exists():
    command = read(DEPLOY / "wm-robot.service")["Service"]["ExecStart"]
    launch = (ROOT / "launch" / "robot_launch.py").read_text()
    launch += (ROOT / "wm_ros" / "process" / "launching.py").read_text()
    given = re.findall(r"(\w+):=", command)
    assert given
    assert [name for name in given if f'"{name}"' not in launch] == []


def test_services_of_the_compose_file_may_write_nothing_but_their_data():
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in composed["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        writable = [v for v in service["volumes"] if not v.endswith(":ro")]
        assert writable == ["data:/data"]
    assert composed["services"]["train"]["network_mode"] == "none"


@pytest.mark.parametrize("name", ["wm-serve.service", "serve"])
def test_the_service_that_is_deployed_starts_and_ends_in_order(name, tmp_path):
    made = trustme.CA().issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(tmp_path / "trainer.pem")
    made.private_key_pem.write_to_path(tmp_path / "trainer.key")
    (tmp_path / "trainer.key").chmod(0o600)
    (tmp_path / "tokens").write_text(f"rover {'0' * 64}\n")
    words = [re.sub(r"^(/etc/wm|/settings|/data|/var/lib/wm)(?=/)", str(tmp_path), w)
             for w in started_by(name)]  # fmt: skip
    words[words.index("--port") + 1] = "0"
    process = subprocess.Popen(
        [sys.executable, "-m", "wm_core.cli.main", *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline_s = time.monotonic() + 120.0
        while not (tmp_path / "run" / "service.json").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline_s, "it did not start"
            time.sleep(0.05)
        url = json.loads((tmp_path / "run" / "service.json").read_text())["url"]
        assert url.startswith("https://")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120.0) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["wm-train.service", "train"])
def test_the_learner_that_is_deployed_has_options_that_exist(name, monkeypatch, tmp_path):
    from wm_core.cli.settings import parse
    from wm_core.library.run_folder import TrainSettings

    words = started_by(name)
    assert words[0] == "train"
    settings = parse(TrainSettings, words[1:], verb="train")
    assert settings.follow
    assert settings.resume
    assert settings.spec
