"""Gives a store rewards: from a formula, a function of the user's, or a few marked frames."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from wm_core.contract.errors import SettingsError, StoreError
from wm_core.contract.files import json_text, read_json, write_atomically
from wm_core.contract.spec import Obs, Spec
from wm_core.recordings.care.place import reading, store_at
from wm_core.recordings.labels.labeller import (
    NO_REWARD,
    FunctionOfSteps,
    Labeller,
    RewardFormula,
    StepRun,
)
from wm_core.recordings.labels.marks import marked_steps, read_marks
from wm_core.recordings.labels.relabel import Relabelled, relabel
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger

if TYPE_CHECKING:
    from wm_core.training.frame_classifier import FrameClassifier

NAME = "labels.json"  #: in the new store: what its rewards were made of
LabelKind = Literal["column", "python", "marks"]


@dataclass(frozen=True)
class Labelled:
    """Says what became of a store, and how far its labels can be trusted."""

    found: Relabelled
    report: str  #: of a classifier, in one line; empty where there is none


def label_store(
    path: Path,
    to: Path,
    kind: LabelKind,
    what: str,
    *,
    threshold: float | None = None,
    seed: int = 0,
    tell: Callable[[str], object] = lambda text: None,
    on_chunk: Callable[[ChunkRow], object] = lambda row: None,
) -> Labelled:
    """Write what is stored at ``path`` into the store ``to``, with rewards made of ``what``.

    Args:
        path: a run folder or a store; it is only read.
        to: folder of the new store, or of one that the same labels have made before.
        kind: column (a formula over what was measured), python (FILE:FUNCTION) or marks (a file).
        what: of that kind.
        threshold: of marks: the reward is 1 from this probability on and 0 below it; None: the
            reward is the probability itself.
        seed: of a classifier.
        tell: called with one line before the steps are written.
        on_chunk: called before each chunk is read.

    Raises:
        SettingsError: for a formula, function or file that cannot be used.
        StoreError: for a store that cannot be read, or a folder that holds other labels.
    """
    root = store_at(path)
    report = ""
    with reading(root) as ledger:
        if not ledger.sessions():
            raise StoreError(f"{root} holds no step to label")
        labeller: Labeller
        if kind == "column":
            labeller = RewardFormula(what)
        elif kind == "python":
            labeller = FunctionOfSteps(what)
        else:
            labeller, report = _classifier(root, ledger, Path(what), threshold, seed)
            tell(report)
        about = {"from": str(root), "with": kind, "what": what, "sha256": labeller.fingerprint}
        _check_target(root, to, about)
        with _whole_or_absent(to):
            write_atomically(to / NAME, f"{json_text(about, indent=1)}\n".encode())
            found = relabel(root, ledger, to, labeller, on_chunk=on_chunk)
    counts = {"steps": found.steps, "rewarded": found.rewarded, "unknown": found.unknown}
    text = json_text(about | counts | {"report": report}, indent=1)
    write_atomically(to / NAME, f"{text}\n".encode())
    return Labelled(found, report)


def _check_target(root: Path, to: Path, about: dict[str, str]) -> None:
    """Refuse a folder that holds a store of its own, or other labels."""
    if to.exists() and to.samefile(root):
        raise StoreError(f"--to {to}: expected another folder than the store that is labelled")
    if to.exists() and not to.is_dir():
        raise StoreError(f"--to {to} is a file: expected a new folder")
    if not (to / LEDGER_NAME).exists():
        if to.exists() and any(to.iterdir()):
            raise StoreError(f"--to {to} holds something else: expected a new folder")
        return
    held = read_json(to / NAME)
    if not held:
        raise StoreError(f"--to {to} holds another store: expected a new folder")
    if held.get("sha256") != about["sha256"]:
        raise StoreError(
            f"--to {to} holds other labels ({held.get('with')} {held.get('what')}): expected a "
            "new folder, as steps would stand in it twice"
        )


@contextlib.contextmanager
def _whole_or_absent(to: Path) -> Iterator[None]:
    """Remove a store that was begun here and could not be finished; one from before stays."""
    held, known = to.exists(), (to / LEDGER_NAME).exists()
    try:
        yield
    except BaseException:
        if not known:
            shutil.rmtree(to, ignore_errors=True)
            if held:
                to.mkdir(exist_ok=True)
        raise


class _FromClassifier:
    """Gives each step the probability that its frame shows success."""

    def __init__(self, network: FrameClassifier, spec: Spec, threshold: float | None) -> None:
        self._network, self._spec, self._threshold = network, spec, threshold
        what = f"classifier {network.sha256} {threshold}"
        self.fingerprint = hashlib.sha256(what.encode()).hexdigest()

    def rewards(self, run: StepRun) -> np.ndarray:
        if run.spec.inputs != self._spec.inputs:  # of another robot than the marked frames
            return np.full(len(run.steps), NO_REWARD)
        probability = self._network.probability(_stacked([step.obs for step in run.steps]))
        if self._threshold is None:
            return np.asarray(probability)
        return (probability >= self._threshold).astype(np.float64)


def _classifier(
    root: Path, ledger: Ledger, path: Path, threshold: float | None, seed: int
) -> tuple[Labeller, str]:
    """Learn a classifier from the frames that ``path`` marks; returns it and its report."""
    from wm_core.training.frame_classifier import learn_frames

    marks, _ = read_marks(path)
    marked = marked_steps(root, ledger, marks)
    spec = marked[0].spec
    other = next((one.mark for one in marked if one.spec.inputs != spec.inputs), None)
    if other is not None:
        raise SettingsError(
            f"--with marks {path}: expected frames with the same sensors, but episode "
            f"{other.episode} has others than {marked[0].mark.episode}"
        )
    network, report = learn_frames(
        spec,
        _stacked([one.step.obs for one in marked]),
        np.array([one.mark.success for one in marked]),
        [one.mark.episode for one in marked],
        seed=seed,
    )
    return _FromClassifier(network, spec, threshold), report.sentence()


def _stacked(frames: list[Obs]) -> Obs:
    """Join the observations of N steps to arrays (N, ...)."""
    return {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
