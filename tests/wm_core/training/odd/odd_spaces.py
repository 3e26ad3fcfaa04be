"""Environments of odd spaces, each with what is said of it; registered as ``OddSpace/NAME-v0``.

Each samples its spaces, and refuses an action that is not an element of its action space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

TRAINS = ""  #: what is said of an environment that is collected from and learnt from
LENGTH = 6  #: agent steps of an episode


class Case(NamedTuple):
    """An odd environment, and what has to become of it."""

    seen: spaces.Space
    done: spaces.Space
    said: str = TRAINS  #: pattern of the one line that it is refused with
    #: makes what is given from the third observation on, in place of a sample
    spoilt: Callable[[Any], Any] = lambda sample: sample


class OddSpace(gymnasium.Env):
    """Samples its observation space; the return grows with the steps."""

    metadata = {"render_fps": 10, "render_modes": []}  # noqa: RUF012

    def __init__(self, case: Case) -> None:
        self.observation_space, self.action_space = case.seen, case.done
        self._spoilt = case.spoilt

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(0 if seed is None else seed)
        self.t = 0
        return self._sample(), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise AssertionError(f"{action!r} is not in {self.action_space}")
        self.t += 1
        return self._sample(), float(self.t), False, self.t >= LENGTH, {}

    def _sample(self):
        sample = self.observation_space.sample()
        return sample if self.t < 2 else self._spoilt(sample)


def box(shape, low=-1.0, high=1.0, dtype=np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


def pixels(*shape: int) -> spaces.Box:
    return box(shape, 0, 255, np.uint8)


TWO, STATE = spaces.Discrete(2), box((3,))
ENDLESS, FLOAT_MAX = box((2,), -np.inf, np.inf), np.finfo(np.float32).max


CASES: dict[str, Case] = {
    # observations
    "Scalar": Case(box(()), TWO),
    "Table": Case(box((2, 3), dtype=np.float64), TWO),
    "Cube": Case(box((2, 2, 2)), TWO),
    "Half": Case(box((3,), dtype=np.float16), TWO),
    "Whole": Case(box((3,), -9, 9, np.int64), TWO),
    "Ram": Case(pixels(128), TWO),
    "Flags": Case(box((4,), 0, 1, np.bool_), TWO),
    "Unbounded": Case(ENDLESS, TWO),
    "Bits": Case(spaces.MultiBinary(5), TWO),
    "BitTable": Case(spaces.MultiBinary((2, 2)), TWO),
    "Room": Case(spaces.Discrete(5, start=-2), TWO),
    "OneRoom": Case(spaces.Discrete(1), TWO),
    "Rooms": Case(spaces.MultiDiscrete([3, 2, 4]), TWO),
    "RoomTable": Case(spaces.MultiDiscrete([[3, 2], [2, 2]]), TWO),
    "Pair": Case(spaces.Tuple([STATE, spaces.Discrete(3)]), TWO),
    "Nested": Case(
        spaces.Dict({"a": spaces.Dict({"b": STATE, "c": spaces.Tuple([TWO, STATE])})}), TWO
    ),
    "Dotted": Case(spaces.Dict({"joint.pos": STATE, "joint.vel": STATE}), TWO),
    "Spoken": Case(spaces.Dict({"a b/c": STATE, "2": TWO, "action": STATE, "step": STATE}), TWO),
    "Empty": Case(spaces.Dict({"goal": box((0,)), "place": STATE}), TWO),
    # images
    "Gray": Case(pixels(70, 80), TWO),
    "GrayFirst": Case(pixels(1, 64, 64), TWO),
    "Alpha": Case(pixels(64, 64, 4), TWO),
    "First": Case(pixels(3, 64, 64), TWO),
    "FloatImage": Case(box((64, 64, 3), 0, 1), TWO),
    "FloatBytes": Case(box((64, 64, 3), 0, 255), TWO),
    "SignedFirst": Case(box((3, 64, 64), -1, 1, np.float64), TWO),
    "IntImage": Case(box((64, 64, 3), 0, 255, np.int32), TWO),
    "Stack": Case(pixels(4, 84, 84), TWO),
    "StackLast": Case(pixels(64, 64, 9), TWO),
    "StackFirst": Case(pixels(6, 64, 64), TWO),
    "StackColour": Case(pixels(4, 64, 64, 3), TWO),
    "StackColourFirst": Case(box((2, 3, 64, 64), 0, 1), TWO),
    "Board": Case(box((8, 8), 0, 3, np.uint8), TWO),
    "BoardColour": Case(pixels(7, 5, 3), TWO),
    "Planes": Case(box((10, 10, 4), 0, 1, np.bool_), TWO),
    "Small": Case(pixels(40, 40, 3), TWO),
    "Wide": Case(pixels(70, 200, 3), TWO),
    "Flat": Case(pixels(20, 200, 3), TWO),
    "Far": Case(box((64, 64, 1), 0, 5000, np.uint16), TWO),
    "Mixed": Case(spaces.Dict({"eye": pixels(64, 64, 3), "far": pixels(3, 32, 32)}), TWO),
    # actions
    "Shaped": Case(STATE, box((2, 3), -2, 3)),
    "Number": Case(STATE, box((), -2, 3)),
    "Double": Case(STATE, box((2,), -2, 3, np.float64)),
    "HalfAct": Case(STATE, box((2,), -2, 3, np.float16)),
    "Wholes": Case(STATE, box((2,), -2, 3, np.int64)),
    "Bytes": Case(STATE, box((2,), 0, 255, np.uint8)),
    "Switches": Case(STATE, box((2,), 0, 1, np.bool_)),
    "From7": Case(STATE, spaces.Discrete(3, start=7)),
    "Many": Case(STATE, spaces.MultiDiscrete([3, 2])),
    "ManyTable": Case(STATE, spaces.MultiDiscrete([[3, 2], [1, 2]])),
    "ManyFrom": Case(STATE, spaces.MultiDiscrete([3, 2], start=[1, -4])),
    "Buttons": Case(STATE, spaces.MultiBinary(4)),
    "Button": Case(STATE, spaces.MultiBinary(1)),
    "Arm": Case(STATE, spaces.Dict({"arm": box((2,)), "hand": spaces.Tuple([box((), 0, 1)])})),
    "Pad": Case(STATE, spaces.Tuple([spaces.Discrete(3), spaces.MultiBinary(2)])),
    # refused before the run begins
    "Text": Case(spaces.Dict({"say": spaces.Text(9), "x": STATE}), TWO, "'say': expected.*Text"),
    "Graph": Case(spaces.Graph(box((2,)), None), TWO, "the observation.*Graph"),
    "Sequence": Case(spaces.Sequence(box((2,))), TWO, "the observation.*Sequence"),
    "Nothing": Case(spaces.Dict({}), TWO, "1 to 64 inputs, got 0"),
    "Crowd": Case(spaces.Dict({f"x{i}": STATE for i in range(65)}), TWO, "64 inputs, got 65"),
    "Clash": Case(spaces.Dict({"a.b": STATE, "a_b": STATE}), TWO, "'a.b' and 'a_b' would both"),
    "Long": Case(spaces.Dict({"x" * 99: STATE}), TWO, "at most 64 letters, got 99"),
    "Layers": Case(pixels(64, 64, 7), TWO, "looks like an image: expected an axis of 1, 3 or 4"),
    "NoBounds": Case(box((64, 64, 3), -np.inf, np.inf), TWO, "looks like an image.*finite bounds"),
    "Voxels": Case(box((60, 60, 60)), TWO, "looks like an image"),
    "Huge": Case(box((70_000,)), TWO, "at most 65536 numbers|1 to 65536 numbers"),
    "Endless": Case(STATE, ENDLESS, "expected finite bounds.*-inf .. inf"),
    "FloatMax": Case(STATE, box((2,), -FLOAT_MAX, FLOAT_MAX), "finite bounds within 1e.12"),
    "Fixed": Case(STATE, box((2,), 1, 1), "each low below its high, got 1 .. 1"),
    "NoChoice": Case(STATE, spaces.Discrete(1), "nothing to choose"),
    "Both": Case(STATE, spaces.Dict({"a": TWO, "b": STATE}), "continuous numbers alone or of"),
    "Speech": Case(STATE, spaces.Text(3), "action: expected a Box with bounds.*got Text"),
    # found wrong while it runs
    "WrongShape": Case(STATE, TWO, r"\(3,\) float32, got \(4,\)", lambda _: np.zeros(4)),
    "WrongKind": Case(STATE, TWO, r"\(3,\) float32, got str", lambda _: "nowhere"),
    "Object": Case(STATE, TWO, r"got \(3,\) object", lambda _: np.array([1, None, 3])),
    "Ragged": Case(STATE, TWO, r"\(3,\) float32, got list", lambda _: [[1], [2, 3]]),
    "FloatPixels": Case(pixels(64, 64, 3), TWO, "uint8, got .* float64", lambda x: x / 255.0),
    "Turned": Case(pixels(64, 80, 3), TWO, r"got \(3, 64, 80\)", lambda x: np.moveaxis(x, 2, 0)),
    "NoRoom": Case(spaces.Discrete(3), TWO, r"a whole number of 0 \.\. 2, got 3", lambda _: 3),
    "NoneAtAll": Case(STATE, TWO, "expected.*got None", lambda _: None),
    "NoneWithin": Case(spaces.Dict({"x": STATE}), TWO, "'x'.*got None", lambda _: {"x": None}),
    "NoDict": Case(spaces.Dict({"x": STATE}), TWO, "expected a dictionary", lambda x: x["x"]),
    "NoKey": Case(spaces.Dict({"x": STATE}), TWO, "the key 'x', got", lambda x: {"y": x["x"]}),
    "NoTuple": Case(spaces.Tuple([STATE, TWO]), TWO, "a tuple of at least 2", lambda x: x[:1]),
}

for name, case in CASES.items():
    gymnasium.register(f"OddSpace/{name}-v0", OddSpace, kwargs={"case": case})
