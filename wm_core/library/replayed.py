"""Episodes of a store, step by step, with what the run's model dreams of them beside.

Recorded pictures, actions and rewards need neither torch nor a checkpoint; both are looked for
when the first dream is asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from wm_core.contract.errors import StoreError, WmError
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.format.chunk import Columns, chunk_path, read_columns
from wm_core.library.episode_book import EpisodeBook, store_of
from wm_core.library.png import png_of
from wm_core.store.episodes import StoredEpisode, spans_of
from wm_core.store.examine import read_stored
from wm_core.store.index import load_index, step_number
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger

if TYPE_CHECKING:
    from wm_core.training.dream import EpisodeDream

MOST_LOOKS = 20  #: at what has arrived, before an answer
KEPT_BYTES = 96 << 20  #: of unpacked chunks in memory, at least one chunk
MOST_EPISODES = 3  #: whose numbers stay in memory
MOST_STEPS = 100_000  #: of an episode that is replayed; what comes later is left out
_Span = tuple[ChunkRow, int, int]  # chunk, first step in it, step behind the last


class _Dreams(Protocol):
    """What is needed of ``library.dreamer.Dreamer``, which needs torch."""

    def why_not(self, replay: Replay) -> str: ...

    def dream(
        self, replay: Replay, step: int, camera: str, start: int | None
    ) -> tuple[int, EpisodeDream]: ...


class Replay:
    """One episode: its numbers in memory, its pictures from the disk.

    Args:
        root: the store's folder.
        episode: which one.
        spans: where its steps lie, as ``spans_of`` says.
        chunks: unpacks chunks, and keeps some.

    Raises:
        OSError: where a file cannot be read.
        StoreError: where steps are no longer in the store.
        ChunkRefused: where one is not what was acknowledged.
    """

    def __init__(
        self, root: Path, episode: StoredEpisode, spans: Iterable[_Span], chunks: _Chunks
    ) -> None:
        self.episode = replace(episode, steps=min(episode.steps, MOST_STEPS))
        self._chunks, self._places = chunks, list[tuple[ChunkRow, int]]()
        found, self.spec = list[np.ndarray](), Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
        for row, start, stop in spans:
            index = load_index(root, row, keep=False)
            stop = min(stop, start + self.episode.steps - len(self._places))
            if stop <= start:
                break
            found.append(index.steps[start:stop])
            self._places += [(row, i) for i in range(start, stop)]
            self.spec = index.spec
        #: (n, A) in [-1, 1] or one-hot
        self.action = np.concatenate([steps["action"] for steps in found])
        #: (n,) float32 that arrived with each step
        self.reward = np.concatenate([steps["reward"] for steps in found])
        #: (n,) bool, no action led to the step
        self.is_first = np.concatenate([step_number(steps, "is_first") for steps in found])
        self._version = np.concatenate([steps["policy_version"] for steps in found])
        acted = [step_number(steps, "is_intervention") for steps in found]
        self._is_intervention = np.concatenate(acted)

    def step(self, step: int) -> dict[str, Any]:
        """Give one step: action in physical units or one-hot, reward, version, who acted.

        Raises:
            StoreError: where there is no such step.
        """
        self._check(step)
        action = self.action[step]
        if not self.spec.action.discrete:
            action = self.spec.action.to_physical(action)
        return {
            "action": action.astype(float).tolist(),
            "reward": float(self.reward[step]),
            "version": int(self._version[step]),
            "is_intervention": bool(self._is_intervention[step]),
        }

    def observe(self, name: str, first: int, end: int) -> np.ndarray:
        """Read (end - first, ...) of the input ``name``, of the steps ``first`` .. ``end`` - 1."""
        is_image, values = name in self.spec.images, []
        for row, i in self._places[first:end]:
            columns = self._chunks.read(row)
            values.append(columns.image(name, i) if is_image else columns.vectors[name][i])
        return np.stack(values)

    def frame(self, step: int, camera: str = "") -> bytes:
        """Draw what a camera saw, as PNG.

        Args:
            step: from 0.
            camera: its name; empty takes the first.

        Raises:
            StoreError: where there is no such step or camera, or its file is damaged or gone.
        """
        camera = self._camera(camera)
        self._check(step)
        try:
            pixels = self.observe(camera, step, step + 1)[0]
        except (OSError, WmError) as error:
            raise StoreError(f"step {step} cannot be read: {error}") from error
        return png_of(self.spec.images[camera].picture(pixels))

    def _camera(self, camera: str) -> str:
        cameras = self.spec.images
        if not cameras or (camera and camera not in cameras):
            names = ", ".join(cameras) or "none"
            raise StoreError(
                f"expected one of the cameras of this episode ({names}), got {camera!r}"
            )
        return camera or next(iter(cameras))

    def _check(self, step: int) -> None:
        if not 0 <= step < self.episode.steps:
            raise StoreError(f"expected a step from 0 to {self.episode.steps - 1}, got {step}")


class EpisodeList(NamedTuple):
    """The newest episodes of a store, the last one first."""

    episodes: list[StoredEpisode]
    problem: str  #: why the store cannot be read; empty where it can
    is_behind: bool  #: more has arrived than one look takes in


class Replays:
    """The episodes of a run, to be looked at; may be called from any thread.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = Path(run)
        self._lock = threading.RLock()
        self._book = EpisodeBook(store_of(self.run))
        self._chunks = _Chunks(self._book.root)
        self._open: OrderedDict[tuple[Any, ...], Replay] = OrderedDict()
        self._dreamer: _Dreams | None = None

    def newest(self, most: int) -> EpisodeList:
        """List up to ``most`` episodes, after a look at what has arrived."""
        with self._lock:
            book = self._look()
            episodes = [replace(e) for e in reversed(book.episodes()[-most:])]
            return EpisodeList(episodes, book.problem, book.is_behind)

    def episode(self, robot: str, session: str, number: int) -> Replay:
        """Open an episode by its robot, session and number in the session.

        Raises:
            StoreError: where it is not in the store, or its files are damaged or gone.
        """
        with self._lock:
            episode = self._look().find(robot, session, number)
            key = (robot, session, number, episode.first_step, episode.steps)
            if key not in self._open:
                self._open[key] = self._opened(episode)
                while len(self._open) > MOST_EPISODES:
                    self._open.popitem(last=False)
            self._open.move_to_end(key)
            return self._open[key]

    def frame(self, replay: Replay, step: int, camera: str = "") -> bytes:
        """Draw what a camera saw at a step of ``replay``, as PNG; raises as ``Replay.frame``."""
        with self._lock:
            return replay.frame(step, camera)

    def why_no_dream(self, replay: Replay) -> str:
        """Say in a sentence why there is no dream of ``replay``; empty where there is."""
        with self._lock:
            return self._dreams().why_not(replay)

    def dream_frame(
        self, replay: Replay, step: int, camera: str = "", start: int | None = None
    ) -> bytes | None:
        """Draw what the model imagines at a step of ``replay``, as PNG.

        Args:
            replay: of the episode.
            step: from 0; one that the dream saw is drawn as it is reconstructed.
            camera: its name; empty takes the first.
            start: last step that the model sees; None: dreams of 50 steps follow each other, each
                after a look at 16 real ones.

        Returns:
            None where the model draws no pictures.

        Raises:
            StoreError: where there is no dream of this episode.
        """
        with self._lock:
            first, made = self._dreamt(replay, step, camera, start)
            at = step - first
            if made.imagined is None or not 0 <= at < len(made.imagined):
                return None
            return png_of(made.imagined[at])

    def dream_numbers(
        self, replay: Replay, step: int, camera: str = "", start: int | None = None
    ) -> dict[str, Any]:
        """Give rewards, surprise and error of the dream that ``step`` is in, as plain data.

        Lists have an element for each step from ``first_step`` of the episode on; the first
        ``observed`` of them were seen.  Null stands for what is not known.

        Raises:
            StoreError: where there is no dream of this episode.
        """
        with self._lock:
            first, made = self._dreamt(replay, step, camera, start)
        error = made.error
        return {
            "first_step": first,
            "observed": made.observed,
            "reward": made.reward.tolist(),
            "reward_seen": made.reward_seen.tolist(),
            "reward_imagined": made.reward_imagined.tolist(),
            "surprise": [x if np.isfinite(x) else None for x in made.surprise.tolist()],
            "error": None if error is None else error.tolist(),
            "limit": made.limit,
        }

    def close(self) -> None:
        """Close what it opened; a second call does nothing."""
        with self._lock:
            self._open.clear()
            self._chunks.clear()
            self._book.close()

    def _look(self) -> EpisodeBook:
        """Bring the book up to date as far as one look may; the lock is held."""
        store = store_of(self.run)
        if store != self._book.root:  # the run was told to learn from another one
            self.close()
            self._book, self._chunks = EpisodeBook(store), _Chunks(store)
        for _ in range(MOST_LOOKS):
            if not self._book.refresh():
                break
        return self._book

    def _dreamt(self, replay: Replay, step: int, camera: str, start: int | None) -> Any:
        replay._check(step)
        if camera or replay.spec.images:
            camera = replay._camera(camera)
        why = self._dreams().why_not(replay)
        if why:
            raise StoreError(why)
        try:
            return self._dreams().dream(replay, step, camera, start)
        except OSError as error:
            raise StoreError(f"no dream: {error}") from error

    def _dreams(self) -> _Dreams:
        if self._dreamer is None:
            from wm_core.library.dreamer import Dreamer

            self._dreamer = Dreamer(self.run)
        return self._dreamer

    def _opened(self, episode: StoredEpisode) -> Replay:
        ledger = Ledger(self._book.root / LEDGER_NAME, read_only=True)
        try:
            return Replay(self._book.root, episode, spans_of(ledger, episode), self._chunks)
        except (OSError, WmError) as error:
            raise StoreError(f"this episode cannot be read: {error}") from error
        finally:
            ledger.close()


class _Chunks:
    """Unpacks chunks, and keeps the last ones within ``KEPT_BYTES``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kept: OrderedDict[int, Columns] = OrderedDict()

    def read(self, row: ChunkRow) -> Columns:
        """Give a chunk unpacked; raises ``OSError`` or ``ChunkRefused``."""
        if row.arrival not in self._kept:
            self._kept[row.arrival] = read_columns(
                read_stored(chunk_path(self._root, row.key), row)
            )
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(row.arrival)
        return self._kept[row.arrival]

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def _bytes(columns: Columns) -> int:
    return len(columns.recording.unpacked)
