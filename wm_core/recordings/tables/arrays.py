"""Reads episodes that are arrays, in memory or in a file that gives parts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.errors import RecordingError
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.table_options import TableOptions
from wm_core.recordings.tables.actions import ActionRange, as_columns, to_actions
from wm_core.recordings.tables.images import FrameShape, frames_of, image_spec, shape_of
from wm_core.recordings.tables.layout import make_spec, vector_of
from wm_core.recordings.tables.rows import Rows, earlier
from wm_core.recordings.tables.source import NO_REWARD, TableSource
from wm_core.recordings.tables.target import TargetRobot, check_target_rate

DEFAULT_FPS = 20.0  #: steps per second, where nothing says it

ArrayLike = Any  #: has shape, dtype and len, and gives numpy arrays for slices


@dataclass
class TableEpisode:
    """Holds one episode: T observations, and as many actions or one fewer."""

    where: str  #: file and episode, for messages
    obs: Mapping[str, ArrayLike]  #: column -> (T, ...)
    action: np.ndarray  #: (T, ...) or (T - 1, ...)
    reward: np.ndarray | None = None  #: (T,) or (T - 1,)
    flags: Mapping[str, np.ndarray] = field(
        default_factory=dict
    )  #: is_first ... is_terminal, (T,)
    ends: np.ndarray | None = None  #: (T,) or (T - 1,) done of each action; only the last counts


def is_image(values: ArrayLike) -> bool:
    """Tell whether an array (T, ...) holds images rather than vectors."""
    return len(values.shape) == 4 or (len(values.shape) == 3 and values.dtype.kind == "u")


def array_source(
    where: Path,
    *,
    name: str,
    task: str,
    files: Sequence[Path],
    options: ReadOptions,
    names: Mapping[str, str],
    episodes: Callable[[], Generator[TableEpisode, None, None]],
    actions: Callable[[], Iterator[np.ndarray]],
    fps: float | None,
    reward_arrives: bool,
    target: TargetRobot | None = None,
    action: ActionSpec | None = None,
    unit_actions: bool = False,
) -> TableSource:
    """Make the source of a recording whose episodes are arrays.

    Args:
        where: the recording.
        name: the robot's.
        task: what was done.
        files: what is read.
        options: what was said.
        names: the names of the observations by their columns, in order.
        episodes: yields the episodes; arrays of each may be read until the next is asked for.
        actions: yields the actions of each episode alone, (T, ...).
        fps: rows per second, as far as it is known.
        reward_arrives: a row's reward arrived with its observation; else its action earned it.
        target: the robot that it is read for.
        action: describes the action, where the format does.
        unit_actions: actions are in [-1, 1] by the rule of the format, unless some are beyond.

    Raises:
        RecordingError: where there is no step, or the first does not fit what was said.
    """
    action, fps, notes = _actions_and_rate(
        where, fps, options, target, None if _said(options) else action, actions, unit_actions
    )
    with _first_of(episodes, names, where) as first:
        reader = ArrayReader(
            first,
            names,
            action,
            period_s=1.0 / (fps or DEFAULT_FPS),
            options=options,
            reward_arrives=reward_arrives,
            target=target,
        )
    return TableSource(
        name=name,
        task=task,
        spec=reader.spec,
        files=files,
        options=options,
        rows=partial(reader.all_rows, episodes),
        notes=notes if first.reward is not None else [*notes, NO_REWARD],
    )


@contextmanager
def _first_of(
    episodes: Callable[[], Generator[TableEpisode, None, None]], names: Iterable[str], where: Path
) -> Iterator[TableEpisode]:
    """Find the first episode with a step; its arrays may be read until the context ends."""
    with closing(episodes()) as found:
        first = next((e for e in found if all(len(e.obs[c]) for c in names)), None)
        if first is None:
            raise RecordingError(f"{where}: it holds no episode with a step")
        yield first


def _said(options: TableOptions) -> bool:
    """Tell whether something was said about the action that the format's own word yields to."""
    return bool(options.action_low or options.action_high or options.action_choices)


def _actions_and_rate(
    where: Path,
    fps: float | None,
    options: ReadOptions,
    target: TargetRobot | None,
    action: ActionSpec | None,
    actions: Callable[[], Iterator[np.ndarray]],
    unit_actions: bool,
) -> tuple[ActionSpec, float | None, list[str]]:
    """Find out what the actions are and how many rows there are in a second; None: unknown."""
    notes: list[str] = []
    if target is not None:
        check_target_rate(where, fps, target)
        return target.spec.action, 1.0 / target.spec.period_s, notes
    if action is None:
        seen = ActionRange(where)
        for values in actions():
            seen.add(values)
        action = seen.spec(options, unit=unit_actions)
        notes += seen.notes(options, action)
    if fps is None:
        notes.append(
            f"it does not say when rows are: {DEFAULT_FPS:g} a second; --fps says another"
        )
    return action, fps, notes


class ArrayReader:
    """Maps the arrays of episodes to rows, all by the rule of the first.

    Args:
        first: the first episode that is not empty.
        names: the names of the observations by their columns, in order.
        action: describes the action.
        period_s: of one step.
        options: what was said.
        reward_arrives: a row's reward arrived with its observation; else its action earned it.
        target: the robot that it is read for; its inputs are as its spec says.
    """

    def __init__(
        self,
        first: TableEpisode,
        names: Mapping[str, str],
        action: ActionSpec,
        *,
        period_s: float,
        options: TableOptions,
        reward_arrives: bool,
        target: TargetRobot | None = None,
    ) -> None:
        self._options = options
        self._arrives = reward_arrives
        if options.reward_timing != "format":
            self._arrives = options.reward_timing == "arrived"
        self._shapes: dict[str, FrameShape] = {}
        self._names = dict(names)
        images, vectors = {}, {}
        for column, name in names.items():
            values, where = first.obs[column], f"{first.where}, {column}"
            if is_image(values):
                shape = shape_of(values.shape[1:], values.dtype, where)
                self._shapes[column] = shape
                images[name] = (
                    image_spec(shape, options, where)
                    if target is None
                    else target.image(name, where)
                )
            else:
                size = as_columns(np.asarray(values[:1]), where).shape[1]
                vectors[name] = (
                    vector_of(where, size) if target is None else target.vector(name, size, where)
                )
        self.spec = make_spec(first.where, images, vectors, action, period_s)

    def all_rows(
        self,
        episodes: Callable[[], Generator[TableEpisode, None, None]],
        left_out: Counter[str],
    ) -> Iterator[Rows]:
        """Map every episode, each while its arrays may be read."""
        with closing(episodes()) as found:
            for episode in found:
                yield self.rows(episode, left_out)

    def rows(self, episode: TableEpisode, left_out: Counter[str]) -> Rows:
        """Map one episode.

        Raises:
            RecordingError: for arrays of other lengths or shapes than they should have.
        """
        steps = self._length(episode)
        action, clipped = to_actions(episode.action, self.spec.action, episode.where)
        action, clipped = _padded(action, steps), _padded(clipped, steps)
        begins, terminal = _borders(episode, steps)
        if terminal is None and self._options.done_means == "terminal":
            terminal = _end(episode, steps, left_out)
        if self._options.action_timing == "led":
            action, clipped = earlier(action, begins), earlier(clipped, begins)
        return Rows(
            where=episode.where,
            time_s=np.arange(steps) * self.spec.period_s,
            action=action,
            vectors={
                name: self._vector(episode, column, steps)
                for column, name in self._names.items()
                if column not in self._shapes
            },
            images=self._images(episode, steps),
            earned=self._earned(episode, steps, begins, left_out),
            terminal=terminal,
            clipped=clipped,
            begins=begins,
        )

    def _length(self, episode: TableEpisode) -> int:
        """Count the steps; every column has to have as many, what acts and earns may lack one."""
        lengths = {column: len(episode.obs[column]) for column in self._names}
        steps = max(lengths.values())
        wrong = {column: n for column, n in lengths.items() if n != steps}
        others = {"action": episode.action, "reward": episode.reward, "done": episode.ends}
        others |= episode.flags
        for name, values in others.items():
            if values is not None and len(values) not in (steps, steps - 1):
                wrong[name] = len(values)
        if wrong:
            got = ", ".join(f"{n} in {column!r}" for column, n in wrong.items())
            raise RecordingError(
                f"{episode.where}: expected {steps} rows in every column, as in the longest, "
                f"got {got}"
            )
        return steps

    def _vector(self, episode: TableEpisode, column: str, steps: int) -> np.ndarray:
        name = self._names[column]
        where = f"{episode.where}, {column}"
        values = as_columns(np.asarray(episode.obs[column][:]), where)
        size = self.spec.vectors[name].size
        if steps and values.shape[1] != size:
            raise RecordingError(
                f"{where}: expected {size} numbers, as before, got {values.shape[1]}"
            )
        with np.errstate(over="ignore"):
            return values.reshape(steps, size).astype(np.float32)

    def _images(
        self, episode: TableEpisode, steps: int
    ) -> Iterator[Mapping[str, np.ndarray | None]]:
        for column, shape in self._shapes.items():
            values, where = episode.obs[column], f"{episode.where}, {column}"
            if steps and (got := shape_of(values.shape[1:], values.dtype, where)) != shape:
                raise RecordingError(f"{where}: expected frames of {shape}, as before, got {got}")
        frames = {self._names[column]: episode.obs[column] for column in self._shapes}
        return in_step(frames, self.spec, episode.where, steps)

    def _earned(
        self, episode: TableEpisode, steps: int, begins: np.ndarray, left_out: Counter[str]
    ) -> np.ndarray | None:
        """Tell what each row's action earned, (T,)."""
        if episode.reward is None:
            return None
        reward = as_columns(episode.reward, f"{episode.where}, reward")
        if reward.shape[1] != 1:
            raise RecordingError(
                f"{episode.where}: expected one reward in a row, got {reward.shape[1]}"
            )
        if not self._arrives or len(reward) < steps:
            return _padded(reward[:, 0], steps)
        early = int(np.count_nonzero(reward[begins, 0]))
        if early:
            left_out["reward_before_the_first_action"] += early
        return earlier(reward[:, 0], begins)


def in_step(
    frames: Mapping[str, ArrayLike], spec: Spec, where: str, steps: int
) -> Iterator[Mapping[str, np.ndarray | None]]:
    """Read the frames (T, ...) of several cameras in step, at the sizes of ``spec``.

    Args:
        frames: of each image of ``spec``.
        spec: of the steps.
        where: the episode, for messages.
        steps: T.

    Raises:
        RecordingError: where a camera has another number of frames.
    """
    wrong = {k: len(values) for k, values in frames.items() if len(values) != steps}
    if wrong:
        raise RecordingError(f"{where}: expected {steps} frames, got {wrong}")
    streams = [
        frames_of(values, shape_of(values.shape[1:], values.dtype, where), spec.images[k], where)
        for k, values in frames.items()
    ]
    for _ in range(steps):
        yield dict(zip(frames, map(next, streams), strict=True))


def _borders(episode: TableEpisode, steps: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Tell before which rows (T,) an episode begins, and which rows (T,) nothing can follow."""
    flags = {
        name: _padded(as_columns(values, f"{episode.where}, {name}")[:, 0] != 0.0, steps)
        for name, values in episode.flags.items()
    }
    begins = flags.get("is_first", np.zeros(steps, bool)).copy()
    begins[:1] = True
    for name in ("is_last", "is_terminal"):
        if name in flags:
            begins[1:] |= flags[name][:-1]
    return begins, flags.get("is_terminal")


def _end(episode: TableEpisode, steps: int, left_out: Counter[str]) -> np.ndarray | None:
    """Tell whether nothing can follow the last row, (T,); done before it is only counted."""
    if episode.ends is None or not len(episode.ends):
        return None
    done = as_columns(episode.ends, f"{episode.where}, done")[:, 0] != 0.0
    if early := int(done[:-1].sum()):
        left_out["done_before_the_end"] += early
    return np.concatenate([np.zeros(steps - 1, bool), done[-1:]])


def _padded(values: np.ndarray, steps: int) -> np.ndarray:
    """Make (steps, ...) of values (T, ...) that lack the last row, in which nothing was sent."""
    missing = np.zeros((max(0, steps - len(values)), *values.shape[1:]), values.dtype)
    return np.concatenate([values, missing])
