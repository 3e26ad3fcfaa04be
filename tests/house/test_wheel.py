"""The wheel brings all that pip users need, and each extra is enough for its machine."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


def run(*words, **kwargs):
    """Run a command and return its output; it must end well."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of this checkout, built with the setuptools that is here."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    source.mkdir()
    for name in ("wm_ros", "wm_core", "sim", "launch"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("package.xml", "setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", ".", cwd=source)
    (path,) = (source / "dist").glob("*.whl")
    return path


def test_the_wheel_brings_wm_launch_files_and_parameters(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    (entries,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "wm = wm_core.cli.main:main" in zipfile.ZipFile(wheel).read(entries).decode()
    shared = {name.partition("/data/share/wm_ros/")[2] for name in names}
    for path in (ROOT / "launch").glob("*_launch.*"):
        assert f"launch/{path.name}" in shared
    assert {"config/wm_ros.yaml", "config/fastdds.xml", "package.xml"} <= shared
    assert "wm_core/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "docs", "examples"))]


def installed(wheel, folder, *requirements):
    """A fresh environment into which the wheel with an extra was installed; returns its bin."""
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q"]
    run(*pip, "-c", ROOT / "constraints.txt", *requirements, env=clean())
    return folder / "bin"


def clean():
    """The environment of a process that finds no package of this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.slow
def test_the_robot_extra_is_enough_for_a_robot(wheel, tmp_path):
    there = installed(wheel, tmp_path / "venv", f"{wheel}[robot]")
    code = "import wm_core as wm; wm.PolicyRunner; import wm_core.link.robot.uploader; wm.Spec"
    run(there / "python", "-c", code, env=clean(), cwd=tmp_path)
    assert "usage: wm" in run(there / "wm", "--help", env=clean())
    words = [there / "wm", "train", "--run", "x"]
    refused = subprocess.run(words, env=clean(), cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "pip install '.[train,sim]' in the folder of wm_ros" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_the_train_extra_is_enough_to_train_from_arrays(wheel, tmp_path):
    import torch

    torch_here = f"torch=={torch.__version__}"
    there = installed(wheel, tmp_path / "venv", torch_here, f"{wheel}[train]")
    code = (
        "import numpy as np, wm_core as wm\n"
        "image, zero = np.zeros((2, 20, 64, 64, 3), np.uint8), np.zeros((2, 20))\n"
        "data = wm.Episodes.from_arrays(image=image, action=zero[..., None], reward=zero)\n"
        "agent = wm.Agent.create('dreamer_v3', data.spec)\n"
        "print([agent.update(b)['loss'] for b in data.windows(batch=2, length=8, updates=2)])\n"
        "agent.export('policy', golden_steps=4)\n"
    )
    run(there / "python", "-c", code, env=clean(), cwd=tmp_path)
    assert "kind" in run(there / "wm", "info", "policy", "--json", env=clean(), cwd=tmp_path)
    assert "dreamer_v3" in run(there / "wm", "presets", env=clean())
