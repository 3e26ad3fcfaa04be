"""``wm``: run one verb, whose module is imported only then, so that ``wm --help`` is instant.

A verb is a row of ``VERBS``; its module has ``main(argv: list[str]) -> int``.  An error that the
project raises on purpose, and a file or a disk that refuses, become one line on standard error and
exit status 2.
"""

from __future__ import annotations

import importlib
import platform
import sqlite3
import sys
from collections.abc import Sequence
from importlib import metadata

from wm_core.cli.screen import complain
from wm_core.contract.errors import WmError, nearest
from wm_core.contract.extras import install_extras
from wm_core.contract.system_faults import system_fault

#: verb -> (module, what it does in one line)
VERBS: dict[str, tuple[str, str]] = {
    "train": (
        "wm_core.cli.train",
        "train a world model and a policy, in simulation or for robots",
    ),
    "evaluate": ("wm_core.cli.evaluate", "measure the mean return of a policy with 95 % bounds"),
    "runs": ("wm_core.cli.runs", "list training runs with their progress, returns and state"),
    "sweep": ("wm_core.cli.sweep", "train over seeds and settings, and compare with bounds"),
    "show": ("wm_core.cli.show", "draw imagined frames beside real ones, as GIF and PNG"),
    "export": ("wm_core.cli.export", "write a run's policy as one ONNX file with its card"),
    "adopt": ("wm_core.cli.adopt", "make a policy folder from an ONNX file of another trainer"),
    "presets": ("wm_core.cli.presets", "list the algorithms, their parts and their settings"),
    "serve": ("wm_core.cli.serve", "receive experience from robots and send them policies"),
    "sim-actor": (
        "wm_core.cli.sim_actor",
        "play a task in simulation, and feed a trainer as a robot does",
    ),
    "keys": ("wm_core.cli.keys", "make and keep the keys that sign policies, and sign with them"),
    "policy": (
        "wm_core.cli.policy",
        "list, promote, roll back and pin the policies that robots run",
    ),
    "data": ("wm_core.cli.data", "import, export, inspect, label and split recordings"),
    "store": ("wm_core.cli.store", "verify and rebuild a store of experience, or copy one"),
    "ui": ("wm_core.cli.ui", "show robots, returns, dreams and policies on one live page"),
    "tasks": ("wm_core.cli.tasks", "list the tasks, or print the inputs and actions of one"),
    "info": ("wm_core.cli.info", "describe a policy, a file of experience, a store or a run"),
    "robot": (
        "wm_core.cli.robot",
        "check a robot file and print its spec; add, list, revoke robots",
    ),
    "doctor": ("wm_ros.doctor.main", "check a robot before it runs, and say what to fix"),
    "bench": ("wm_core.cli.bench", "measure the simulator, the learner, replay or a policy"),
    "demo": ("wm_core.cli.demo", "run the whole loop: robot, ROS 2, trainer, new policies"),
}

USAGE = """\
usage: wm VERB [options]          wm VERB --help says more; wm --version

{verbs}

a first session:
  wm tasks                                    list the tasks
  wm presets                                  list the algorithms
  wm train --task seek --size micro --run runs/seek
  wm evaluate --run runs/seek --episodes 10
  wm show --run runs/seek
  wm export --run runs/seek --to seek_policy

with a robot: `wm serve --root runs/robot` on the trainer's machine, beside it
  wm train --follow --task seek --run runs/robot
and with one of your own, described by a file:
  wm robot check robot.yaml
  wm train --follow --spec robot.yaml --run runs/robot
from what was recorded before, such as a ROS bag:
  wm data import BAG --robot robot.yaml --root runs/mine
  wm train --store runs/mine/store --run runs/offline
more experience, from simulators on any machine:
  wm sim-actor --trainer http://127.0.0.1:8765 --task seek
"""

ROS = "source ROS 2 first: source /opt/ros/<distribution>/setup.bash"
INTERRUPTED = 130  #: exit status after Ctrl-C, as shells have it
REFUSED = 2  #: exit status after an error that the user can correct


def usage() -> str:
    """Text of ``wm --help``."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in VERBS.items())
    return USAGE.format(verbs=verbs)


def version() -> str:
    """What runs here: this package with its revision, Python, and the libraries that decide."""
    from wm_core.training.provenance import commit

    parts = [f"wm_ros {_version_of('wm_ros') or 'not installed, run from its folder'}"]
    if commit():
        parts.append(f"commit {commit()}")
    parts.append(f"Python {platform.python_version()}")
    libraries = ("torch", "onnxruntime", "gymnasium")
    parts += [f"{name} {_version_of(name) or 'not installed'}" for name in libraries]
    return ", ".join(parts)


def _version_of(package: str) -> str:
    """The version of ``package``, which is not imported; empty where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status of the process."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0
    if args[0] in ("-V", "--version"):
        sys.stdout.write(f"{version()}\n")
        return 0
    verb, *rest = args
    if verb not in VERBS:
        complain(f"wm: {nearest(verb, VERBS, what='verb')} (wm --help lists all)")
        return REFUSED
    try:
        return int(importlib.import_module(VERBS[verb][0]).main(rest))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "wm_core":
            raise  # not an extra but a mistake in this project
        cure = (
            ROS
            if error.name == "rclpy"
            else f"the trainer's machine needs: {install_extras('train', 'sim')}"
        )
        complain(f"wm {verb}: {error.name} is not installed; {cure}")
        return REFUSED
    except WmError as error:
        complain(f"wm {verb}: {error}")
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `wm tasks | head`
        sys.stderr.close()
        return 0
    except (OSError, sqlite3.OperationalError) as error:
        fault = system_fault(error)
        if fault is None:
            raise
        complain(f"wm {verb}: {fault}")
        return REFUSED


if __name__ == "__main__":
    sys.exit(main())
