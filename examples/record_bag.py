"""Record a bag as a robot's owner might have: a drive to the red pillar, with teleoperation.

    python examples/record_bag.py --to pillar_bag --episodes 10

The robot of the task `sim:seek` is driven by its expert, whose hand is not quite steady.  What
comes out is a plain rosbag2 (MCAP), which knows nothing of this project: a camera of 96 x 96
pixels and velocities that are commanded, both ten times a second, a score, and a word when a drive
is over.  `docs/tutorials/my_bag.md` imports it and learns from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

import sim

TYPES = get_typestore(Stores.ROS2_JAZZY)
MESSAGES: dict[str, Any] = dict(TYPES.types)
BEGIN_NS = 1_760_000_000_000_000_000
SECOND_NS = 1_000_000_000
PERIOD_NS = SECOND_NS // 10  #: of a frame and of a command
PAUSE_NS = 2 * SECOND_NS  #: between two episodes, in which the robot is put back
UNSTEADY = (0.1, 0.6)  #: standard deviation of the hand, m/s and rad/s


class Bag:
    """Writes messages at the times that it is told."""

    def __init__(self, path: Path) -> None:
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._topics: dict[str, Any] = {}

    def __enter__(self) -> Bag:
        self._writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, topic: str, at_ns: int, msg: Any) -> None:
        """Write one message."""
        kind = msg.__msgtype__
        if topic not in self._topics:
            self._topics[topic] = self._writer.add_connection(topic, kind, typestore=TYPES)
        self._writer.write(self._topics[topic], at_ns, TYPES.serialize_cdr(msg, kind))


def image_message(frame: np.ndarray, stamp_ns: int) -> Any:
    """Make the message of a frame (H, W, 3) uint8 that was taken at ``stamp_ns``."""
    seconds, nanoseconds = divmod(stamp_ns, SECOND_NS)
    stamp = MESSAGES["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return MESSAGES["sensor_msgs/msg/Image"](
        header=MESSAGES["std_msgs/msg/Header"](stamp=stamp, frame_id="camera"),
        height=frame.shape[0],
        width=frame.shape[1],
        encoding="rgb8",
        is_bigendian=0,
        step=frame.shape[1] * 3,
        data=np.ascontiguousarray(frame).reshape(-1),
    )


def twist_message(forward: float, turn: float) -> Any:
    """Make the message of a velocity in m/s and rad/s."""
    vector = MESSAGES["geometry_msgs/msg/Vector3"]
    return MESSAGES["geometry_msgs/msg/Twist"](
        linear=vector(x=forward, y=0.0, z=0.0), angular=vector(x=0.0, y=0.0, z=turn)
    )


def record(path: Path, episodes: int, seed: int) -> int:
    """Record ``episodes`` drives to ``path``; the number of frames."""
    env = gymnasium.make("sim:seek", image_size=96)
    expert, rng = sim.expert("seek"), np.random.default_rng(seed)
    assert expert is not None
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    frames, now_ns = 0, BEGIN_NS
    done = MESSAGES["std_msgs/msg/Bool"](data=True)
    with Bag(path) as bag:
        for episode in range(episodes):
            obs, _ = env.reset(seed=seed + episode)
            reward, over = 0.0, False
            while True:
                seen_ns = now_ns + 15_000_000  # the camera takes 15 ms to send a frame
                score = MESSAGES["std_msgs/msg/Float32"](data=float(reward))
                bag.write("/score", seen_ns - 2_000_000, score)
                if over:
                    bag.write("/episode_done", seen_ns - 1_000_000, done)
                bag.write("/camera/image_raw", seen_ns, image_message(obs["image"], now_ns))
                frames += 1
                if over:
                    break
                action = expert(env) + rng.normal(0, UNSTEADY)
                action = np.clip(action, low, high).astype(np.float32)
                command = twist_message(float(action[0]), float(action[1]))
                bag.write("/cmd_vel", seen_ns + 5_000_000, command)
                obs, reward, terminated, truncated, _ = env.step(action)
                over, now_ns = terminated or truncated, now_ns + PERIOD_NS
            now_ns += PAUSE_NS
    env.close()
    return frames


def main() -> None:
    """Record a bag."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--to", type=Path, required=True, help="folder of the bag, made anew")
    parser.add_argument("--episodes", type=int, default=10, help="drives to the pillar")
    parser.add_argument("--seed", type=int, default=0, help="of the arenas and of the hand")
    asked = parser.parse_args()
    frames = record(asked.to, asked.episodes, asked.seed)
    print(f"{asked.to}: {asked.episodes} drives, {frames} frames")


if __name__ == "__main__":
    main()
