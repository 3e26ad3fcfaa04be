"""The functions that a trainer calls beside learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wm_core.training.best import Evaluate
from wm_core.training.loggers.base import Loggers
from wm_core.training.publisher import Publication
from wm_core.training.rollout_video import RolloutVideo
from wm_core.training.status import Status


@dataclass(frozen=True)
class Hooks:
    """Functions that a trainer calls beside learning; None leaves that part out."""

    publish: Callable[[Publication], None] | None = None  #: writes a policy out
    status: Callable[[Status], None] | None = None  #: receives the progress about once a second
    video: Callable[[], RolloutVideo] | None = None  #: renders real beside imagined frames
    evaluate: Evaluate | None = None  #: runs whole episodes
    keep_best: Callable[[int], None] | None = None  #: keeps the policy of so many updates as best
    prune: Callable[[], None] | None = None  #: keeps the store within its size, once a second
    #: opens the loggers of a new run, or of one that goes on after these (updates, agent steps)
    loggers: Callable[[tuple[int, int] | None], Loggers] | None = None
