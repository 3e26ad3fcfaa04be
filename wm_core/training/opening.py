"""Opens the environment of a task, fitted to the policy that is to act in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import gymnasium
import numpy as np

from wm_core.contract.compare import differences
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.training.adapter import EnvAdapter
from wm_core.training.env_process import ProcessEnv
from wm_core.training.settings import EnvConfig
from wm_core.training.tasks import fitted, make_env, spec_of

RENDERED = "rgb_array"  #: render mode of a picture


def open_env(
    task: str,
    *,
    seed: int | np.random.Generator,
    spec: Spec | None = None,
    env: EnvConfig | None = None,
    render: bool = False,
    wait: Callable[[float], object] = time.sleep,
    process: bool = False,
) -> tuple[EnvAdapter, Spec]:
    """Open the environment of ``task``, seeded, and give the spec that its policies have.

    Args:
        task: as for ``tasks.make_env``.
        seed: of the episodes, or the generator that draws their seeds.
        spec: of the policy; the environment must give at least its inputs.
        env: how the environment is made; None: the defaults.
        render: let it render pictures, where it can.
        wait: waits so many seconds before the environment is made anew after a fault.
        process: whether it acts in a process of its own.

    Raises:
        SettingsError: where the environment lacks an input of the policy, takes other actions
            (their kind, number, bounds or names) or acts at another rate.
    """
    settings = fitted(task, env or EnvConfig(), spec)
    made = make_env(task, settings)
    if render and made.render_mode is None and RENDERED in made.metadata.get("render_modes", ()):
        made.close()
        made = make_env(task, settings, render_mode=RENDERED)
    try:
        given = spec_of(made, settings)
        wanted = spec or given
        off = differences(wanted, given, resized=True)
        if off:
            raise SettingsError(f"task {task!r} does not fit the policy: {'; '.join(off)}")
        rng = seed
        if not isinstance(rng, np.random.Generator):
            rng = np.random.default_rng(seed)
            rng.integers(2**31)  # the first seed was left out by every earlier version
        remake: Callable[[], gymnasium.Env] = partial(make_env, task, settings)
        if process:
            remake = partial(ProcessEnv, task, settings, made)
            made.close()
            made = remake()
        return EnvAdapter(made, wanted, rng, task=task, remake=remake, wait=wait), wanted
    except BaseException:
        made.close()
        raise
