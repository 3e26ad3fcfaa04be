"""Lists the kinds of sensors, and joins several sensors into one observation.

A new kind is a file in this folder and a row in ``SENSORS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import Obs, Spec
from wm_ros.sensors.camera import Camera
from wm_ros.sensors.depth import DepthCamera
from wm_ros.sensors.joint_states import JointStates
from wm_ros.sensors.source import Senses, Source

#: what the parameter ``<sensor>.type`` may name
SENSORS: dict[str, type[Source]] = {
    "camera": Camera,
    "depth": DepthCamera,
    "joint_states": JointStates,
}


def assign(sources: Sequence[Source], spec: Spec) -> dict[str, Source]:
    """Find the source that feeds each input of a policy, by the input's name.

    A source feeds the input of its own name.  Inputs without one share out the sources that are
    left: one camera feeds one image, joint states feed every vector.

    Raises:
        SpecMismatch: for an input without exactly one source that fits, or a first source (it
            sets the pace) that feeds nothing.
    """
    fed: dict[str, Source] = {}
    for name, kind in spec.inputs.items():
        named = [source for source in sources if source.name == name]
        free = [s for s in sources if s.name not in spec.inputs]
        left = [s for s in free if s.feeds_many or s not in fed.values()]
        fitting = [source for source in named or left if source.fits(kind)]
        if len(fitting) != 1:
            raise SpecMismatch(
                f"the policy's input {name!r} is {kind.what}; sensors that could feed it: "
                f"{[s.name for s in fitting]} of {[s.name for s in sources]}; name one of "
                f"them {name!r} in the parameter sensors, and set {name}.type and {name}.topic"
            )
        fed[name] = fitting[0]
    if sources[0] not in fed.values():
        raise SpecMismatch(
            f"expected a policy with an input for the first sensor, {sources[0].name!r}, "
            f"which sets the pace; its inputs are {[*spec.inputs]}; see the parameter sensors"
        )
    return fed


class Sensors:
    """Joins what the sources remember into the observation of a tick.

    The first source sets the pace: its newest message gives an observation its stamp, and a tick
    waits for it.  From every other source comes the message that is nearest to that stamp, at
    most a period away.

    Args:
        sources: at least one.
        period_ns: of one agent step.
    """

    def __init__(self, sources: Sequence[Source], period_ns: int) -> None:
        self.sources, self.period_ns = tuple(sources), period_ns
        self.first = self.sources[0]
        self.frames_missed = 0  #: gaps in the stamps of the first source, in periods
        self.refusal = ""  #: why the newest messages do not fit the policy
        self._spec: Spec | None = None
        self._fed: Mapping[str, Source] = {}

    @property
    def frames(self) -> int:
        """Count the messages of the first source."""
        return self.first.messages

    def begin(self, spec: Spec, period_ns: int) -> None:
        """Take inputs and period from the first policy."""
        self._spec, self._fed, self.period_ns = spec, assign(self.sources, spec), period_ns

    def on_message(self, source: Source, msg: Any, now_ns: int) -> None:
        """Remember a message; gaps between stamps of the first source count as missed frames."""
        before_ns, known = source.stamp_ns, source.messages > 0
        source.on_message(msg, now_ns)
        if source is self.first and known and source.stamp_ns > before_ns:
            periods = round((source.stamp_ns - before_ns) / self.period_ns)
            self.frames_missed += max(0, periods - 1)

    def sense(self, *, fresh: bool, now_ns: int, ros_now_ns: int) -> Senses:
        """Build the observation of a tick.

        Args:
            fresh: whether the first source's newest message came since the last tick.
            now_ns: steady time.
            ros_now_ns: ROS time, to which stamps belong.
        """
        if not self.first.messages or self._spec is None:
            return Senses(None)
        obs, refused = None, None
        try:
            obs, missing = self._observe(self._spec)
            refused = missing and f"no_{missing}"
            self.refusal = ""
        except SpecMismatch as error:
            refused, self.refusal = "frame_refused", str(error)
        return Senses(
            obs=obs,
            stamp_ns=self.first.stamp_ns,
            fresh=fresh,
            receive_age_s=(now_ns - self.first.arrived_ns) * 1e-9,
            stamp_age_s=(ros_now_ns - self.first.stamp_ns) * 1e-9,
            refused=refused,
        )

    def _observe(self, spec: Spec) -> tuple[Obs | None, str | None]:
        """Observe; or give None, and the name of the sensor that has nothing near it."""
        obs: Obs = {}
        for name, kind in spec.inputs.items():
            source = self._fed[name]
            value = source.observe(kind, self.first.stamp_ns, self.period_ns)
            if value is None:
                return None, source.name
            obs[name] = value
        return obs, None
