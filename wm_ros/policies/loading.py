"""Opens, proves and tries a new policy in the worker's thread, before it may take over; no ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from wm_core.contract.errors import PolicyRefused, PolicyUnready, SpecMismatch, WmError
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import Spec
from wm_ros.commands import CommandSet
from wm_ros.commands.owner import check_period
from wm_ros.policies.candidate import Candidate, TickHistory
from wm_ros.policies.deadline import Deadline, limit_of
from wm_ros.settings import SlotSettings

_PROOF_S = 120.0  #: longest time that the proof of a policy may take


def check_acceptable(spec: Spec, *, commands: CommandSet, running: Spec | None) -> None:
    """Raise ``SpecMismatch`` for a policy that this robot cannot run.

    Args:
        spec: of the policy.
        commands: channels by which the robot is driven.
        running: spec of the policy that runs; None before the first one.
    """
    check_period(spec)
    commands.check(spec.action)
    check_running_spec(spec, running)


def check_running_spec(spec: Spec, running: Spec | None) -> None:
    """Raise ``SpecMismatch`` for a ``spec`` that differs from that of the ``running`` policy."""
    if running is not None and spec != running:
        raise SpecMismatch(f"expected the running policy's spec {running}, got {spec}")


class Loader:
    """Makes candidates of policy folders.

    Args:
        settings: how policies are tried; may be exchanged.
        history: what the running policy saw of late, which a candidate follows.
        seed: of every random draw of a policy.
        accept: raises ``WmError`` for a policy that this robot cannot run.
        opens: opens a folder, and raises ``WmError`` for a policy that is not trusted.
        admits: raises ``WmError`` for a proven policy that may not run after all.
        simulated: time stands still while a policy thinks, so that none is late by itself.
    """

    def __init__(
        self,
        settings: SlotSettings,
        history: TickHistory,
        *,
        seed: int,
        accept: Callable[[PolicyRunner], None],
        opens: Callable[[Path], PolicyRunner],
        admits: Callable[[Candidate], None],
        simulated: bool,
    ) -> None:
        self.settings, self._history, self._seed = settings, history, seed
        self._accept, self._opens, self._admits = accept, opens, admits
        self._simulated = simulated
        self._opened: PolicyRunner | None = None  # what is proven just now
        self._late = False

    def load(self, folder: Path) -> Candidate:
        """Open and prove a policy, and let it see the last seconds.

        Raises:
            WmError: where it is refused, whatever its files made the runtime raise.
        """
        bound, self._late = None, False
        try:
            runner = self._opened = self._opens(folder)
            bound = threading.Timer(_PROOF_S, self._give_up, [runner])
            bound.start()
            self._accept(runner)
            candidate = self._candidate(runner, folder)
            candidate.try_()  # first, for the proof of a slow one takes long
            tolerance = self.settings.max_tolerance or None
            runner.prove(PolicyFolder(folder), max_tolerance=tolerance)
            self._follow(candidate)
            self._admits(candidate)
            return candidate
        except Exception as error:  # whatever a file does, the running policy goes on
            if self._opened is not None:
                self._opened.close()
            if self._late:
                raise PolicyUnready(f"its proof took more than {_PROOF_S:g} s") from error
            if isinstance(error, MemoryError):
                raise PolicyUnready("this machine's memory is too small just now") from error
            if not isinstance(error, WmError):
                text = f"{type(error).__name__}: {error}"
                raise PolicyRefused(text[:300]) from error
            raise
        finally:
            self._opened = None
            if bound is not None:
                bound.cancel()

    def cancel(self) -> None:
        """Break off a proof, from any thread."""
        if (opened := self._opened) is not None:
            opened.cancel()

    def deadline(self, runner: PolicyRunner) -> Deadline:
        """Make what judges how long the steps of a policy take."""
        return Deadline(self.limit_s(runner))

    def apply_settings(self, candidate: Candidate) -> None:
        """Have a policy act by the present settings, whichever it was loaded under."""
        candidate.engine.mean = self.settings.acts_by_mean
        candidate.deadline.limit_s = self.limit_s(candidate.engine.runner)

    def limit_s(self, runner: PolicyRunner) -> float:
        """Give the longest seconds of processor time that a step of a policy may take."""
        return limit_of(self.settings, runner.spec.period_s, simulated=self._simulated)

    def _give_up(self, runner: PolicyRunner) -> None:
        self._late = True
        runner.cancel()

    def _candidate(self, runner: PolicyRunner, folder: Path) -> Candidate:
        settings = self.settings
        mean, seed = settings.acts_by_mean, self._seed + runner.card.version
        engine = PolicyEngine(runner, seed=seed, mean=mean, estimates=("surprise",))
        candidate = Candidate(engine, folder, since=self._history.ticks)
        candidate.deadline = self.deadline(runner)
        return candidate

    def _follow(self, candidate: Candidate) -> None:
        settings, history = self.settings, self._history
        period_s = candidate.engine.runner.spec.period_s
        history.keep(max(2, round(settings.history_s / period_s)))
        for _ in range(history.kept):  # a slow one must not keep the others waiting
            if not candidate.follow(history, all_of_it=False):
                break
        if settings.swap_mode != "reinfer":  # that was its trial; it begins with an episode
            candidate.engine.reset()
