"""Presents environments as states and actions in [-1, 1], and makes them anew after a fault.

An environment that raises costs its episode, not the run: it is closed and made anew, later each
time, until it has failed ``MAX_FAILURES`` times in a row without one whole step between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from wm_core.contract.errors import EnvFault, EnvRaised, SettingsError
from wm_core.contract.spec import Obs, Spec
from wm_core.training.env_process import ProcessEnv
from wm_core.training.soundness import UsableSenses
from wm_core.training.spaces import ActionMap, ObsReader, said_env

MAX_FAILURES = 5  #: in a row without one whole step, after which a run ends
FIRST_WAIT_S = 0.1  #: before an environment is made anew; twice as long at every failure in a row

log = logging.getLogger(__name__)


@dataclass
class EnvState:
    """What one environment shows before the next action is chosen."""

    obs: Obs
    reward: float = 0.0  #: 0.0 at ``is_first``
    is_first: bool = True
    is_last: bool = False
    is_terminal: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    lost_pixels: bool = False  #: an image came from NaN or infinity, which no pixel can hold


class EnvAdapter:
    """Presents a Gymnasium environment as states and actions in [-1, 1].

    Args:
        env: has observations and actions in its own units.
        spec: as ``tasks.spec_of(env)`` gives it.
        rng: draws the seed of every episode.
        task: its name in errors.
        remake: makes the environment anew after a fault; None: a fault ends the episode and all.
        wait: waits so many seconds before that.

    Attributes:
        restarts: how often the environment was made anew.
        sent: (A,) the action that was sent last.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        spec: Spec,
        rng: np.random.Generator,
        *,
        task: str = "",
        remake: Callable[[], gymnasium.Env] | None = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self.env, self._spec, self._rng = env, spec, rng
        self._task, self._remake, self._wait = task, remake, wait
        self._reader = ObsReader(env.observation_space, env.metadata)
        self._actions = ActionMap(env.action_space, env.metadata)
        self.sent = self.prev_action = np.zeros(spec.action.size, np.float32)
        self.senses = UsableSenses()
        self.restarts = self._failures = 0
        self._stepped = False  # one whole step was ever taken
        self._state: EnvState | None = None
        self._pending = ""  # the method that was called and not answered yet

    @property
    def state(self) -> EnvState:
        """What the environment shows now; the first look begins the first episode.

        Not the constructor: a resumed run draws the seed of that episode from streams that are
        restored after it.
        """
        return self.reset() if self._state is None else self._state

    def reset(self, seed: int | None = None) -> EnvState:
        """Begin the episode of ``seed``, or of one that is drawn; returns its first state."""
        self.send_reset(seed)
        return self.receive()

    def step(self, action: np.ndarray) -> EnvState:
        """Send ``action`` (A,) in [-1, 1], already within the spec's limits."""
        if self._state is None:
            self.reset()
        self.send(action)
        return self.receive()

    def send_reset(self, seed: int | None = None) -> None:
        """Begin an episode; ``receive`` gives its first state."""
        drawn = int(self._rng.integers(2**31)) if seed is None else seed
        self.sent = np.zeros(self._spec.action.size, np.float32)
        self._call: Any = (self.env.reset, {"seed": drawn})
        if isinstance(self.env, ProcessEnv):
            self.env.send_reset(drawn)
            self._call = (self.env.reset_wait, {})
        self._pending = "reset"

    def send(self, action: np.ndarray) -> None:
        """Send ``action`` (A,) as ``step`` does; ``receive`` gives what follows."""
        self.sent = action
        command = self._actions.element(self._spec.action.to_physical(action))
        self._call = (self.env.step, {"action": command})
        if isinstance(self.env, ProcessEnv):
            self.env.send_step(command)
            self._call = (self.env.step_wait, {})
        self._pending = "step"

    def receive(self) -> EnvState:
        """Give the state that follows what was sent; raises ``EnvFault``."""
        method, arguments = self._call
        try:
            if self._pending == "reset":
                raw, info = method(**arguments)
                state = EnvState(self._reader.read(raw, self._spec), info=info)
            else:
                raw, reward, terminated, truncated, info = method(**arguments)
                state = EnvState(
                    self._reader.read(raw, self._spec),
                    reward=float(reward),
                    is_first=False,
                    is_last=bool(terminated or truncated),
                    is_terminal=bool(terminated),
                    info=info,
                )
                self._stepped, self._failures = True, 0
        except EnvFault as error:
            if str(error).startswith("task "):
                raise
            about = f"task {self._task!r}" if self._task else said_env(self.env)
            raise EnvFault(f"{about}: {self._pending}(): {error}") from error
        state.lost_pixels = bool(self._reader.not_finite)
        self.prev_action, self._state = self.sent, state
        return state

    def begin(self) -> None:
        """Begin the first episode, where none has begun."""
        if self._state is None:
            self.send_reset()
            self.receive_or_restart()

    def receive_or_restart(self) -> EnvFault | None:
        """Receive the next state; after a fault, that of a new episode of a new environment.

        Returns:
            The fault that ended the episode; None where there was none.

        Raises:
            EnvFault: where the environment cannot be made anew, or fails again and again.
        """
        try:
            self.receive()
        except EnvFault as fault:
            self._restart(fault)
            return fault
        return None

    def _restart(self, fault: EnvFault) -> None:
        while True:
            self._failures += 1
            lasting = not isinstance(fault, EnvRaised) and not self._stepped
            if self._remake is None or lasting:
                raise fault
            if self._failures >= MAX_FAILURES:
                times = f"{MAX_FAILURES} times in a row without one whole step"
                raise EnvFault(f"{fault}; it failed {times}") from fault
            log.warning("%s; the episode ends here, the environment is made anew", fault)
            self._wait(FIRST_WAIT_S * 2 ** (self._failures - 1))
            self.env.close()
            self.restarts += 1
            try:
                self.env = self._remake()
                self.reset()
            except (EnvFault, SettingsError) as again:
                fault = again if isinstance(again, EnvFault) else EnvRaised(again)
            else:
                return
