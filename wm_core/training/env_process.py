"""Runs an environment in a process of its own, which may be killed without harm to the run.

Each is an ``AsyncVectorEnv`` of Gymnasium with one environment, without its automatic reset: all
act at once, each is reset by its own seed, and one that ends, hangs or is killed is made anew
alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from wm_core.contract.errors import EnvFault, EnvRaised, WmError
from wm_core.training.settings import EnvConfig
from wm_core.training.tasks import make_env

_FAULT, _RAISED = "wm_fault", "wm_raised"  #: keys of ``info`` by which a process tells a fault
CLOSE_S = 5.0  #: seconds in which a process may close its environment


class _Bounds(gymnasium.Env):
    """Stands for the environment in the process that does not run it."""

    def __init__(self, observation: spaces.Space, action: spaces.Space) -> None:
        self.observation_space, self.action_space = observation, action
        self.metadata = {}

    def close(self) -> None:
        """Close nothing."""


class _Telling(gymnasium.Wrapper):
    """Tells faults in ``info``, as an error would end the process."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; ``info`` has nothing but a fault."""
        try:
            return self.env.reset(**kwargs)[0], {}
        except EnvFault as fault:
            return self._nothing(), _told(fault)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step; ``info`` has nothing but a fault."""
        try:
            obs, reward, terminated, truncated, _ = self.env.step(action)
        except EnvFault as fault:
            return self._nothing(), 0.0, False, True, _told(fault)
        return obs, float(reward), terminated, truncated, {}

    def _nothing(self) -> Any:
        return create_empty_array(self.observation_space, n=None)  # type: ignore[arg-type]


class _Unmade(_Bounds):
    """Stands for an environment that could not be made."""

    def __init__(self, bounds: _Bounds, reason: str) -> None:
        super().__init__(bounds.observation_space, bounds.action_space)
        self._reason = reason

    def reset(self, **kwargs: Any) -> NoReturn:
        """Say why it could not be made."""
        raise EnvRaised(self._reason)


def _told(fault: EnvFault) -> dict[str, Any]:
    return {_FAULT: str(fault), _RAISED: isinstance(fault, EnvRaised)}


@dataclass(frozen=True)
class _Maker:
    """Makes the environment in its process, and what stands for it in the process that trains."""

    task: str
    settings: EnvConfig
    observation: spaces.Space
    action: spaces.Space
    trainer: int  #: id of the process that trains

    def __call__(self) -> gymnasium.Env:
        bounds = _Bounds(self.observation, self.action)
        if os.getpid() == self.trainer:
            return bounds
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the trainer, which ends this
        try:
            return _Telling(make_env(self.task, self.settings))
        except WmError as error:
            return _Telling(_Unmade(bounds, str(error)))


class ProcessEnv(gymnasium.Env):
    """Is an environment that acts in a process of its own.

    Args:
        task: as for ``tasks.make_env``.
        settings: of the environment; ``step_timeout_s`` is the most that a step may take.
        like: an environment of the same task and settings, whose spaces and metadata it has.
    """

    def __init__(self, task: str, settings: EnvConfig, like: gymnasium.Env) -> None:
        self.observation_space, self.action_space = like.observation_space, like.action_space
        self.metadata, self.spec = like.metadata, like.spec
        self._task, self._timeout_s = task, settings.step_timeout_s
        self._broken: BaseException | None = None
        maker = _Maker(task, settings, self.observation_space, self.action_space, os.getpid())
        try:
            self._vector = AsyncVectorEnv(
                [maker],
                shared_memory=False,
                copy=False,
                context="spawn",
                autoreset_mode=AutoresetMode.DISABLED,
            )
        except (EOFError, OSError, RuntimeError) as error:
            raise EnvRaised(f"task {task!r}: its process did not begin: {error!r}") from error

    @property
    def pid(self) -> int | None:
        """The id of its process."""
        return self._vector.processes[0].pid

    def send_reset(self, seed: int) -> None:
        """Begin the episode of ``seed``; ``reset_wait`` gives its first observation."""
        self._begin(self._vector.reset_async, [seed])

    def send_step(self, action: Any) -> None:
        """Send ``action``, an element of the action space; ``step_wait`` gives what follows."""
        empty: Any = create_empty_array(self.action_space, n=1)
        one = concatenate(self.action_space, [action], empty)
        self._begin(self._vector.step_async, one)

    def reset_wait(self) -> tuple[Any, dict[str, Any]]:
        """Give the observation that ``send_reset`` asked for; raises ``EnvFault``."""
        obs, info = self._end("reset", self._vector.reset_wait)
        return self._single(obs), info

    def step_wait(self) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Give what follows ``send_step``; raises ``EnvFault``."""
        obs, reward, terminated, truncated, info = self._end("step", self._vector.step_wait)
        ends = bool(terminated[0]), bool(truncated[0])
        return self._single(obs), float(reward[0]), *ends, info

    def close(self) -> None:
        """End the process; a second call does nothing."""
        if self._vector.closed:
            return
        try:
            if self._broken is None:
                self._vector.close(timeout=CLOSE_S)
        except (EOFError, OSError, AttributeError):
            pass  # it is gone already
        finally:
            for process in self._vector.processes:
                process.kill()
                process.join()
            self._vector.closed = True

    def _begin(self, call: Any, given: Any) -> None:
        try:
            call(given)
        except OSError as error:  # told when it is waited for
            self._broken = error

    def _end(self, method: str, wait: Any) -> Any:
        try:
            if self._broken is not None:
                raise self._broken
            result = wait(self._timeout_s)
        except multiprocessing.TimeoutError as error:
            self._broken = error
            raise EnvRaised(
                f"task {self._task!r}: {method}() took more than {self._timeout_s:g} s "
                "(env.step_timeout_s)"
            ) from error
        except (EOFError, OSError) as error:
            self._broken = error
            raise EnvRaised(f"task {self._task!r}: its process ended during {method}()") from error
        except (TypeError, ValueError) as error:
            raise EnvFault(
                f"task {self._task!r}: {method}() gave an observation that does not fit "
                f"{self.observation_space}: {error}"
            ) from error
        info = result[-1]
        if _FAULT in info:
            kind = EnvRaised if bool(np.asarray(info[_RAISED])[0]) else EnvFault
            raise kind(info[_FAULT][0])
        return result

    def _single(self, batch: Any) -> Any:
        return next(iter(iterate(self._vector.observation_space, batch)))
