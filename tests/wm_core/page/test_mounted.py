"""The page within the trainer's service, as a real process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from wm_core.contract.files import read_json
from wm_core.link.trainer.tokens import add_token

ROOT = Path(__file__).parents[3]


@pytest.fixture
def serve(tmp_path, closing):
    """Starts `wm serve --ui` and gives its address and process."""

    def start(*options):
        command = [sys.executable, "-m", "wm_core.cli", "serve", "--root", str(tmp_path / "run")]
        command += ["--port", "0", "--ui", *options]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        closing(process.wait, 60)
        closing(process.kill)
        end_s = time.monotonic() + 120
        while not (found := read_json(tmp_path / "run" / "service.json")):
            assert process.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.05)
        return found["url"], process

    return start


def report(**said):
    return {"t_ns": time.time_ns(), "mode": "acts", "policy": 3, **said}


def test_a_robot_that_speaks_is_shown_and_is_told_that_it_is_watched(serve, get, listen):
    url, process = serve()
    assert get.post(f"{url}/v1/live/kitchen", json=report()).json()["watched"] is False
    said = {"action": [0.25], "action_names": ["forward"], "counters": {"steps_recorded": 41}}

    def arrived(shown):
        get.post(f"{url}/v1/live/kitchen", json=report(**said))
        return "forward" in shown.get("robot-0-state", "") and "41" in shown.get("lost", "")

    shown = listen(f"{url}/ui/", arrived)
    assert "kitchen" in shown["robots"]
    assert "version 3" in shown["robot-0-state"]
    assert get.post(f"{url}/v1/live/kitchen", json=report()).json()["watched"] is True
    with httpx.stream("GET", f"{url}/ui/events", timeout=60) as answer:
        next(answer.iter_lines())
        process.terminate()  # an open page does not hold the service back
        assert process.wait(60) == 0


def test_the_service_s_tokens_let_people_look(serve, get, tmp_path):
    token = add_token(tmp_path / "tokens", "kitchen")
    url, _ = serve("--tokens", str(tmp_path / "tokens"))
    assert get.get(f"{url}/ui/").status_code == 401
    bearer = {"Authorization": f"Bearer {token}"}
    assert get.get(f"{url}/ui/", headers=bearer).status_code == 200
    assert get.post(f"{url}/ui/login", data={"token": token}).status_code == 303
    assert get.get(f"{url}/ui/").status_code == 200
    assert get.get(f"{url}/v1/status").status_code == 401  # the cookie is of the page alone


def test_allow_rollback_needs_the_page(tmp_path):
    command = [sys.executable, "-m", "wm_core.cli", "serve", "--root", str(tmp_path)]
    done = subprocess.run(
        [*command, "--allow-rollback"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "needs --ui" in done.stderr
    assert json.dumps(done.stderr).count("\\n") == 1


def test_wm_ui_ends_well_while_a_page_is_open(tmp_path, closing):
    command = [sys.executable, "-m", "wm_core.cli", "ui", "--root", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    closing(process.communicate)
    closing(process.kill)
    url = process.stdout.readline().split()[1]
    with httpx.stream("GET", f"{url}events", timeout=60) as answer:
        next(answer.iter_lines())
        process.terminate()
        assert process.wait(60) == 0
