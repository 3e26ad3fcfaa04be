"""Lists the faults that ``fault_campaign`` injects: every kind, with its variants."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_ros import convert

Draw = random.Random
Bench = Any  #: ``fault_campaign.Bench``, which imports this
JOINTS = ("shoulder", "elbow", "wrist")


@dataclass(frozen=True)
class Robot:
    """Says what the faults need to know of the robot."""

    period_s: float  #: of one agent step
    oldest_s: float  #: oldest image on which its policy acts


@dataclass
class Fault:
    """Describes one fault: how messages change, what people do, and what has to follow."""

    kind: str
    variant: str
    reasons: tuple[str, ...]  #: one of which the diagnostics must name; ``acts``: it goes on
    frame: Callable[[Any], Any] | None = None  #: changes a frame; None as its result: withheld
    joints: Callable[[Any], Any] | None = None  #: changes the joints, in the same way
    begin: Callable[[Any], None] | None = (
        None  #: what people, files or the clock do; gets the bench
    )
    end: Callable[[Any], None] | None = None
    seen_after_s: float = 0.0  #: from its first message to the moment at which it can be seen
    every: int = 1  #: only each so-many-th frame is sent: a slow camera
    speed: float = 1.0  #: of simulated time
    stops: str = "zero"  #: safe action: zero, hold, none; or no: the robot goes on
    said: str = ""  #: what the diagnostics must say besides
    latches: bool = False  #: a rearm has to follow


def withheld(msg: Any) -> None:
    """Send nothing."""


def changed(**fields: Any) -> Callable[[Any], Any]:
    """Set fields of a message."""

    def change(msg: Any) -> Any:
        for name, value in fields.items():
            setattr(msg, name, value)
        return msg

    return change


def stamped(move: Callable[[int], int]) -> Callable[[Any], Any]:
    """Move the stamp of a message."""

    def change(msg: Any) -> Any:
        convert.set_time(msg.header.stamp, max(0, move(convert.to_ns(msg.header.stamp))))
        return msg

    return change


def shifted(seconds: float) -> Callable[[Any], Any]:
    """Move the stamp by so many seconds."""
    return stamped(lambda stamp_ns: stamp_ns + round(seconds * 1e9))


def same_frame() -> Callable[[Any], Any]:
    """Show the same picture for ever, with new stamps."""
    kept: list[Any] = []

    def change(msg: Any) -> Any:
        kept.append(msg.data)
        msg.data = kept[0]
        return msg

    return change


def same_stamp() -> Callable[[Any], Any]:
    """Keep the first stamp for ever."""
    kept: list[int] = []

    def move(stamp_ns: int) -> int:
        kept.append(stamp_ns)
        return kept[0]

    return stamped(move)


def truncated(msg: Any) -> Any:
    """Lose half of the bytes."""
    msg.data = msg.data[: len(msg.data) // 2]
    return msg


def other_joints(names: list[str], values: list[float]) -> Callable[[Any], Any]:
    """Send other names and positions."""
    return changed(name=names, position=values)


# --------------------------------------------------------------------------------------- cameras


def camera_faults(draw: Draw, robot: Robot) -> Iterator[Fault]:
    """List faults of the camera."""
    yield Fault("camera silent", "at once", ("no_frame",), frame=withheld)
    every = draw.choice((6, 8, 10))
    slow = f"every {every} periods"
    yield Fault("camera too slow", slow, ("camera_slow",), every=every, said="policy")
    yield Fault(
        "camera slower",
        "every 2 periods",
        ("acts", "no_frame"),
        every=2,
        stops="settles",
        said="Hz, policy",
    )
    yield Fault("camera frozen", "", ("frozen_frame",), frame=same_frame(), seen_after_s=1.0)
    late = -draw.choice((1.5, 10.0, 600.0)) * robot.oldest_s
    yield Fault("stamps stale", f"{late:.1f} s", ("stale_stamp",), frame=shifted(late))
    yield Fault("stamps zero", "", ("stale_stamp",), frame=stamped(lambda stamp_ns: 0))
    ahead = draw.choice((1.5, 10.0, 3600.0)) * robot.oldest_s
    yield Fault("stamps ahead", f"{ahead:.1f} s", ("stamp_in_future",), frame=shifted(ahead))
    yield Fault(
        "stamps constant", "", ("stale_stamp",), frame=same_stamp(), seen_after_s=robot.oldest_s
    )
    side = draw.choice((1, 8, 31))
    small = changed(height=side, width=side, step=3 * side, data=bytes(3 * side * side))
    yield Fault("frame too small", f"{side} px", ("frame_refused",), frame=small)
    encoding = draw.choice(("32FC1", "", "RGB8", "h264", "16UC1"))
    other = changed(encoding=encoding)
    yield Fault("wrong encoding", encoding, ("frame_refused",), frame=other)
    yield Fault("frame truncated", "", ("frame_refused",), frame=truncated)
    step = draw.choice((0, 1, 95))
    yield Fault("wrong step", f"{step}", ("frame_refused",), frame=changed(step=step))
    yield Fault("empty frame", "", ("frame_refused",), frame=changed(height=0, width=0, step=0))


# ---------------------------------------------------------------------------------------- joints


def joint_faults(draw: Draw, robot: Robot) -> Iterator[Fault]:
    """List faults of the joints."""
    a, b, c = "shoulder", "elbow", "wrist"
    yield Fault("joints silent", "", ("no_joint_states",), joints=withheld)
    bad = draw.choice((float("nan"), float("inf"), float("-inf")))
    not_finite = other_joints([a, b, c], [0.1, bad, 0.3])
    yield Fault("joint not a number", f"{bad}", ("nan_obs",), joints=not_finite)
    lacking = draw.choice(([a, b], [b, c], [a], []))
    fewer = other_joints(lacking, [0.1] * len(lacking))
    refused = ("frame_refused", "no_joint_states")
    yield Fault("joints missing", ",".join(lacking), refused, joints=fewer)
    twice = other_joints([a, b, c, b], [0.1, 0.2, 0.3, 0.4])
    yield Fault("joint doubled", "", refused, joints=twice)
    short = other_joints([a, b, c], [0.1, 0.2])
    yield Fault("fewer positions than names", "", refused, joints=short)
    strange = other_joints(["j1", "j2", "j3"], [0.1, 0.2, 0.3])
    yield Fault("another robot's joints", "", refused, joints=strange)
    order = other_joints([c, a, b], [0.3, 0.1, 0.2])
    yield Fault("joints reordered", "", ("acts",), joints=order, stops="no")
    more = other_joints([a, "gripper", b, c], [0.1, 9.0, 0.2, 0.3])
    yield Fault("more joints", "", ("acts",), joints=more, stops="no")
    away = draw.choice((-5.0, 5.0))
    # Joints from before the fault still belong to the frames of one period.
    moved = {"joints": shifted(away), "seen_after_s": robot.period_s}
    yield Fault("joints' stamps off", f"{away:g} s", ("no_joint_states",), **moved)
    zero = {"joints": stamped(lambda stamp_ns: 0), "seen_after_s": robot.period_s}
    yield Fault("joints' stamps zero", "", ("no_joint_states",), **zero)


# ------------------------------------------------------------------------- people and parameters


def press(bench: Bench) -> None:
    """Press the emergency stop."""
    from std_msgs.msg import Bool

    bench.emergency.publish(Bool(data=True))


def release(bench: Bench) -> None:
    """Release the emergency stop."""
    from std_msgs.msg import Bool

    bench.emergency.publish(Bool(data=False))
    until = time.monotonic() + 2 * bench.period_s
    bench.pump(lambda: time.monotonic() > until)


def stop_service(bench: Bench) -> None:
    """Call ``~/stop``."""
    from std_srvs.srv import Trigger

    bench.seen_s = time.monotonic()
    bench.call(Trigger, "stop", Trigger.Request())


def transition(name: str) -> Callable[[Bench], None]:
    """Ask for a transition of the life cycle."""

    def change(bench: Bench) -> None:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f"TRANSITION_{name}")
        bench.seen_s = time.monotonic()
        bench.call(ChangeState, "change_state", request)

    return change


def drive(x: float, z: float) -> Callable[[Bench], None]:
    """Drive by the joystick; 0, 0 looks like a stop to the receiver."""

    def begin(bench: Bench) -> None:
        bench.joystick = (x, z)

    return begin


def let_go(bench: Bench) -> None:
    """Let go of the joystick."""
    bench.joystick = None


def setting(**params: Any) -> Callable[[Bench], None]:
    """Set parameters at run time."""

    def change(bench: Bench) -> None:
        bench.set(**params)

    return change


def resubscribe(bench: Bench) -> None:
    """Subscribe the commands again."""
    bench.hear()


def unsubscribe(bench: Bench) -> None:
    """Subscribe the commands no more."""
    bench.node.destroy_subscription(bench.heard)


def people_faults(draw: Draw, robot: Robot) -> Iterator[Fault]:
    """List what people do, on topics, by services and by parameters."""
    stop = ("emergency_stop",)
    yield Fault("emergency stop", "topic", stop, begin=press, end=release, latches=True)
    yield Fault("emergency stop", "service", stop, begin=stop_service, latches=True)
    yield Fault("takeover", "", ("takeover",), begin=drive(0.0, 0.0), end=let_go)
    off, on = transition("DEACTIVATE"), transition("ACTIVATE")
    yield Fault("deactivated", "", ("inactive",), begin=off, end=on)
    lost = {"begin": unsubscribe, "end": resubscribe, "said": "subscribes"}
    yield Fault("subscriber lost", "", ("acts",), stops="no", **lost)
    held = {"frame": withheld, "end": setting(safe_action="zero")}
    for action in ("hold", "none"):
        begin = setting(safe_action=action)
        yield Fault(f"silent, {action}", "", ("no_frame",), begin=begin, stops=action, **held)
    yield Fault(
        "silent, latched",
        "",
        ("no_frame", "latched"),
        frame=withheld,
        begin=setting(latch_safe=True),
        end=setting(latch_safe=False),
        latches=True,
    )
    wrong = draw.choice(({"safe_action": "foo"}, {"period_s": 0.5}, {"frozen_s": -7.0}))
    yield Fault("refused parameter", f"{wrong}", ("acts",), begin=setting(**wrong), stops="no")
    right = draw.choice(({"frozen_s": 0.9}, {"max_gap_s": 0.0}, {"exploration": "mean"}))
    yield Fault("changed parameter", f"{right}", ("acts",), begin=setting(**right), stops="no")


# ----------------------------------------------------------------------------------------- files


def broken_version(damage: Callable[[Path], None]) -> Callable[[Bench], None]:
    """Put a damaged version beside the running one."""

    def begin(bench: Bench) -> None:
        versions = [int(p.name) for p in bench.policy.iterdir() if p.name.isdecimal()]
        target = bench.policy / str(max(versions) + 1)
        part = bench.policy / f".{target.name}.part"
        shutil.copytree(bench.policy / str(min(versions)), part)
        damage(part)
        part.rename(target)

    return begin


def no_more_versions(bench: Bench) -> None:
    """Remove the versions that were put there."""
    versions = sorted(int(p.name) for p in bench.policy.iterdir() if p.name.isdecimal())
    for version in versions[1:]:
        shutil.rmtree(bench.policy / str(version))


def cut(folder: Path) -> None:
    """Cut the model short."""
    file = folder / "policy.onnx"
    file.write_bytes(file.read_bytes()[:1000])


def flip(folder: Path) -> None:
    """Flip a byte of the model."""
    data = bytearray((folder / "policy.onnx").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (folder / "policy.onnx").write_bytes(bytes(data))


def lose(name: str) -> Callable[[Path], None]:
    """Lose a file."""
    return lambda folder: (folder / name).unlink()


def file_faults(draw: Draw, robot: Robot) -> Iterator[Fault]:
    """List faults of policies on the disk: the running one goes on."""
    damages = {
        "cut short": cut,
        "a byte flipped": flip,
        "no golden": lose("policy.golden.npz"),
        "no manifest": lose("policy.manifest.json"),
        "no model": lose("policy.onnx"),
        "an empty manifest": lambda folder: (folder / "policy.manifest.json").write_text(""),
    }
    name = draw.choice([*damages])
    begin = broken_version(damages[name])
    end = no_more_versions
    yield Fault("broken policy", name, ("acts",), begin=begin, end=end, stops="no")
    same = broken_version(lambda folder: None)
    yield Fault("policy swapped", "", ("acts",), begin=same, end=end, stops="no")


# --------------------------------------------------------------------------------- simulated time


def jump(seconds: float) -> Callable[[Bench], None]:
    """Move simulated time at once."""

    def begin(bench: Bench) -> None:
        bench.jump_ns = max(round(seconds * 1e9), 10**9 - bench.stamp_ns())

    return begin


def pause(bench: Bench) -> None:
    """Stop the simulation, and its clock."""
    bench.paused, bench.seen_s = True, bench.good_s


def go_on(bench: Bench) -> None:
    """Let the simulation go on."""
    bench.paused = False


def clock_faults(draw: Draw, robot: Robot) -> Iterator[Fault]:
    """List faults of simulated time."""
    yield Fault("simulation paused", "", ("no_frame",), begin=pause, end=go_on)
    yield Fault("camera silent", "at once", ("no_frame",), frame=withheld)
    seconds = draw.choice((5.0, 97.0, 3600.0))
    yield Fault("clock jumps ahead", f"{seconds} s", ("acts",), begin=jump(seconds), stops="no")
    yield Fault("clock jumps back", "to its start", ("acts",), begin=jump(-1e9), stops="no")
    yield Fault("stamps zero", "", ("stale_stamp",), frame=stamped(lambda stamp_ns: 0))
    yield Fault("joints silent", "", ("no_joint_states",), joints=withheld)
    bad = other_joints(["shoulder", "elbow", "wrist"], [0.1, float("nan"), 0.3])
    yield Fault("joint not a number", "", ("nan_obs",), joints=bad)
    speed = draw.choice((0.6, 0.8, 2.0))
    yield Fault(
        "simulation's speed", f"{speed} x", ("acts",), speed=speed, stops="no", begin=go_on
    )


REAL = (camera_faults, joint_faults, people_faults, file_faults)


def plan(count: int, seed: int, robot: Robot) -> list[tuple[bool, list[Fault]]]:
    """Draw ``count`` faults, each kind as often as the others, in a random order.

    Returns:
        for each robot whether its time is simulated, and its faults.
    """
    draw, real, simulated = Draw(seed), list[Fault](), list[Fault]()
    while len(real) + len(simulated) < count:
        for kinds in REAL:
            real += kinds(draw, robot)
        simulated += clock_faults(draw, robot)
    draw.shuffle(real)
    draw.shuffle(simulated)
    share = len(simulated) * count // (len(real) + len(simulated))
    return [(False, real[: count - share]), (True, simulated[:share])]
