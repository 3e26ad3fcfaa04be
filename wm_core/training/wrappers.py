"""Wraps environments as ``EnvConfig`` says: repeated actions, gray images, checked results."""

from __future__ import annotations

import inspect
import numbers
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces

from wm_core.contract.errors import EnvFault, EnvRaised

_NEW_STEP = "(obs, reward, terminated, truncated, info), as Gymnasium has it since 0.26"
_NEW_RESET = "(obs, info), as Gymnasium has it since 0.26"
EnvInfo = dict[str, Any]


class Checked(gymnasium.Wrapper):
    """Turns every error of a user's environment into one ``EnvFault`` that names the task.

    Results are brought to the types of Gymnasium's interface: rewards of one number in an array
    become floats, and ends that are 0 or 1 become bools.  Whether numbers are finite is not asked.

    Args:
        env: of any kind.
        task: its name in errors.
    """

    def __init__(self, env: gymnasium.Env, task: str) -> None:
        super().__init__(env)
        self._task, self._closed = task, False
        self._lacking = _lacking(env.unwrapped.reset)
        if not isinstance(env.metadata, Mapping):
            self.metadata = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, EnvInfo]:
        """Begin an episode; raises ``EnvFault`` for an error or a result of another form."""
        if self._lacking:
            self._fail(
                f"reset() takes no {' and no '.join(self._lacking)}, expected "
                "reset(self, *, seed=None, options=None)"
            )
        result: Any = self._call("reset", seed=seed, options=options)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            self._fail(f"reset() returned {_form(result)}, expected {_NEW_RESET}")
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, EnvInfo]:
        """Take one step; raises ``EnvFault`` for an error or a result of another form."""
        result: Any = self._call("step", action)
        if not isinstance(result, tuple) or len(result) != 5:
            self._fail(f"step() returned {_form(result)}, expected {_NEW_STEP}")
        obs, reward, terminated, truncated, info = result
        if not isinstance(info, dict):
            self._fail(f"step() returned info {_shown(info)}, expected a dictionary")
        return (
            obs,
            self._number(reward),
            self._truth("terminated", terminated),
            self._truth("truncated", truncated),
            info,
        )

    def render(self) -> Any:
        """Draw the present state; raises ``EnvFault`` for an error."""
        return self._call("render")

    def close(self) -> None:
        """Close the environment, whatever it says to that; a second call does nothing."""
        if not self._closed:
            self._closed = True
            try:
                self.env.close()
            except (Exception, SystemExit):
                return  # it is not needed any more

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self.env, method)(*args, **kwargs)
        except EnvFault:
            raise
        except (Exception, SystemExit) as error:
            raise raised(self._task, f"{method}()", error, self.env.unwrapped) from error

    def _number(self, reward: Any) -> float:
        number = _one_number(reward)
        if number is None:
            self._fail(f"step() returned the reward {_shown(reward)}, expected one number")
        return number

    def _truth(self, name: str, value: Any) -> bool:
        number = _one_number(value)
        if number not in (0.0, 1.0):
            self._fail(f"step() returned {name} {_shown(value)}, expected True or False")
        return number == 1.0

    def _fail(self, reason: str) -> NoReturn:
        raise EnvFault(f"task {self._task!r}: {reason}")


def raised(task: str, where: str, error: BaseException, env: object = None) -> EnvRaised:
    """Make one line of what an environment raised, with the file and line of its own code.

    Args:
        task: its name.
        where: what was called, such as ``step()``.
        error: that came out of it.
        env: whose source is preferred among the places that the error passed.
    """
    frames = traceback.extract_tb(error.__traceback__)
    try:
        own = inspect.getsourcefile(type(env))
    except TypeError:
        own = None
    place = next(
        (f for f in reversed(frames) if f.filename == own), frames[-1] if frames else None
    )
    at = f" ({place.filename}, line {place.lineno})" if place else ""
    text = " ".join(str(error).split())
    return EnvRaised(f"task {task!r}: {where} raised {type(error).__name__}: {text[:300]}{at}")


def _lacking(reset: Any) -> list[str]:
    """List the parameters that Gymnasium's ``reset`` has and this one has not."""
    try:
        takes = inspect.signature(reset).parameters.values()
    except (TypeError, ValueError):
        return []
    if any(p.kind is p.VAR_KEYWORD for p in takes):
        return []
    named = {p.name for p in takes if p.kind is not p.POSITIONAL_ONLY}
    return [name for name in ("seed", "options") if name not in named]


def _one_number(value: Any) -> float | None:
    """Read one real number, which may stand in an array of one; None for anything else."""
    try:
        array = np.asarray(value)
        if array.size == 1 and array.dtype.kind in "fiub":
            return float(array.item())
        is_real = isinstance(value, numbers.Real)  # beyond 64 bits, or a fraction
        return float(value) if is_real else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _form(result: Any) -> str:
    """Describe the form of ``result`` in a few words."""
    if isinstance(result, tuple):
        kinds = ", ".join(type(part).__name__ for part in result[:6])
        return f"{len(result)} values ({kinds})"
    return f"one {type(result).__name__}"


def _shown(value: Any) -> str:
    shape = f" of shape {np.shape(value)}" if isinstance(value, np.ndarray) else ""
    return f"{str(value)[:60]!r} ({type(value).__name__}{shape})"


class Repeat(gymnasium.Wrapper):
    """Holds each action for several steps of a task, whose rewards add up, or until the end.

    Args:
        env: of the task.
        times: steps of the task for one agent step.
    """

    def __init__(self, env: gymnasium.Env, times: int) -> None:
        super().__init__(env)
        self.times = times

    def step(self, action: Any) -> tuple[Any, float, bool, bool, EnvInfo]:
        """Take one agent step; the observation is the last one."""
        total = 0.0
        for _ in range(self.times):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


class Gray(gymnasium.ObservationWrapper):
    """Gives every colour image of an observation one channel (ITU-R BT.601).

    Args:
        env: observations may be nested in dictionaries and tuples.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = _gray_space(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Turn (..., H, W, 3) or (3, H, W) images into one channel, same dtype."""
        return _gray(observation, self.env.observation_space)


def _channels(space: spaces.Space) -> int | None:
    """Find the axis of the three colours of an image; None for anything else."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 3 or min(space.shape) < 3:
        return None
    return next((axis for axis in (2, 0) if space.shape[axis] == 3), None)


def has_colours(space: spaces.Space) -> bool:
    """Tell whether ``space`` is or holds a colour image."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return any(has_colours(part) for part in parts)
    return _channels(space) is not None


def _gray_space(space: spaces.Space) -> spaces.Space:
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _gray_space(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([_gray_space(part) for part in space.spaces])
    axis = _channels(space)
    if axis is None or not isinstance(space, spaces.Box):
        return space
    low, high = (np.take(bound, [0], axis) for bound in (space.low, space.high))
    return spaces.Box(low, high, dtype=space.dtype)  # type: ignore[arg-type]


def _gray(value: Any, space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict) and isinstance(value, dict):
        return {k: _gray(v, space[k]) if k in space.spaces else v for k, v in value.items()}
    if isinstance(space, spaces.Tuple) and isinstance(value, tuple | list):
        return tuple(_gray(v, part) for v, part in zip(value, space.spaces, strict=False))
    axis = _channels(space)
    frame = np.asarray(value) if axis is not None else None
    if axis is None or frame is None or frame.shape != space.shape:
        return value  # what does not fit its space is refused where it is read
    if frame.dtype.kind == "f":
        red, green, blue = np.moveaxis(frame, axis, 0)
        one = (0.299 * red + 0.587 * green + 0.114 * blue).astype(frame.dtype)
    else:
        red, green, blue = np.moveaxis(frame.astype(np.uint32), axis, 0)
        one = ((77 * red + 150 * green + 29 * blue + 128) >> 8).astype(frame.dtype)
    return np.expand_dims(one, axis)
