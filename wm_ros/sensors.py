"""What camera and joints said last, and the observation that the policy makes of it."""

from __future__ import annotations

from collections import deque

from sensor_msgs.msg import Image, JointState

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import to_network
from wm_core.contract.spec import Obs, Spec
from wm_ros import convert
from wm_ros.pilot import Senses


class Sensors:
    """Remembers the newest frame and a few joint states; converts when a tick asks.

    ``period_ns`` is that of the policy: what is further from a frame does not belong to it.
    """

    def __init__(self, period_ns: int) -> None:
        self.period_ns = period_ns
        self.arrived_ns = 0  #: steady time at which the newest frame came; 0 for none yet
        self.stamp_ns = 0  #: its stamp
        self.frames = self.frames_missed = 0
        self.refusal = ""  #: why the newest frame does not fit the policy
        self._frame: Image | None = None
        self._joints: deque[JointState] = deque(maxlen=10)

    def on_image(self, msg: Image, now_ns: int) -> None:
        """Remember the newest frame; gaps between stamps count as missed frames."""
        stamp_ns = convert.to_ns(msg.header.stamp)
        if self._frame is not None and stamp_ns > self.stamp_ns:
            periods = round((stamp_ns - self.stamp_ns) / self.period_ns)
            self.frames_missed += max(0, periods - 1)
        self.frames += 1
        self._frame, self.arrived_ns, self.stamp_ns = msg, now_ns, stamp_ns

    def on_joints(self, msg: JointState) -> None:
        """Remember a joint state."""
        self._joints.append(msg)

    def sense(self, spec: Spec | None, *, fresh: bool, now_ns: int, ros_now_ns: int) -> Senses:
        """What was sensed, as the policy of ``spec`` wants it.

        Args:
            spec: None while no policy has said what it wants.
            fresh: whether the newest frame came since the last tick.
            now_ns: steady time.
            ros_now_ns: ROS time, to which stamps belong.
        """
        if self._frame is None or spec is None:
            return Senses(None)
        obs, refused = None, None
        try:
            obs = self._observe(self._frame, spec)
            refused = "no_joint_states" if obs is None else None
            self.refusal = ""
        except SpecMismatch as error:
            refused, self.refusal = "frame_refused", str(error)
        return Senses(
            obs=obs,
            stamp_ns=self.stamp_ns,
            fresh=fresh,
            receive_age_s=(now_ns - self.arrived_ns) * 1e-9,
            stamp_age_s=(ros_now_ns - self.stamp_ns) * 1e-9,
            refused=refused,
        )

    def _observe(self, frame: Image, spec: Spec) -> Obs | None:
        (key, image), *_ = spec.images.items()
        obs: Obs = {key: to_network(convert.to_frame(frame, image.channels), image)}
        for name, vector in spec.vectors.items():
            found = self._joints_of_frame()
            if found is None:
                return None
            obs[name] = convert.to_vector(found, vector.size, "joint_states")
        return obs

    def _joints_of_frame(self) -> JointState | None:
        """The joint state nearest to the frame's stamp, at most a period away."""

        def distance(msg: JointState) -> int:
            return abs(convert.to_ns(msg.header.stamp) - self.stamp_ns)

        nearest = min(self._joints, key=distance, default=None)
        return nearest if nearest is not None and distance(nearest) <= self.period_ns else None
