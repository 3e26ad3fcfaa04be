"""``wm tasks``: list the tasks, or print the inputs and actions of one."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console
from rich.table import Table

from wm_core.cli.settings import parse
from wm_core.contract.errors import SettingsError
from wm_core.contract.extras import install_extras
from wm_core.contract.files import json_text
from wm_core.contract.spec import ActionSpec, Frozen, Spec
from wm_core.training.settings import EnvConfig
from wm_core.training.tasks import make_env, rules_of, spec_of, task_names


class TasksSettings(Frozen):
    """List the tasks, or print the inputs and actions of one.

    `wm tasks NAME --json` prints a spec that `wm train --spec FILE` reads.
    """

    task: tyro.conf.Positional[str] = Field(
        "", description="Task to describe: a name from the list, or any Gymnasium id"
    )
    env: EnvConfig = EnvConfig()
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON instead of a table"
    )


def main(argv: Sequence[str]) -> int:
    """List the tasks or describe one; returns the exit status."""
    settings = parse(TasksSettings, argv, verb="tasks")
    if not settings.task:
        return _list(as_json=settings.json_)
    env = make_env(settings.task, settings.env)
    try:
        spec, rules = spec_of(env, settings.env), rules_of(env, settings.env)
    finally:
        env.close()
    if settings.json_:
        sys.stdout.write(spec.model_dump_json(indent=2) + "\n")
    else:
        Console().print(_table(settings.task, spec))
        for name, rule in rules.items():
            sys.stdout.write(f"{name} from {rule}\n")
    return 0


def _list(*, as_json: bool) -> int:
    names = task_names()
    if not names:
        raise SettingsError(
            f"no tasks are installed: install the sim extra, {install_extras('sim')}"
        )
    if as_json:
        sys.stdout.write(json_text(names) + "\n")
    else:
        sys.stdout.write("\n".join(names) + "\n")
        sys.stderr.write(
            "\nany other Gymnasium id: CartPole-v1, CartPole-v1@pixels (as it is rendered), "
            "ALE/Pong-v5,\nyour_module:YourTask-v0\n"
        )
    return 0


def _table(task: str, spec: Spec) -> Table:
    table = Table("what", "name", "shape", "range", title=task, title_justify="left")
    for key, sensor in spec.inputs.items():
        table.add_row(
            "camera" if key in spec.images else "vector", key, str(sensor.shape), sensor.reach
        )
    action = spec.action
    for i, (low, high) in enumerate(zip(action.low, action.high, strict=True)):
        name = action.names[i] if i < len(action.names) else str(i)
        unit = action.units[i] if i < len(action.units) else ""
        reach = _choice(action, i) if action.discrete else f"{low:g} .. {high:g} {unit}"
        table.add_row("action", name, "", reach)
    table.add_row("period", "", "", f"{spec.period_s:g} s")
    return table


def _choice(action: ActionSpec, i: int) -> str:
    """Say which choice entry ``i`` of a discrete action stands for."""
    if not action.groups:
        return f"choice {i}"
    number = bisect_right(action.begins, i) - 1
    return f"choice {i - action.begins[number]} of number {number + 1}"
