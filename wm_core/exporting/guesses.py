"""Says of another trainer's network what its file tells, and asks for what it does not.

A LEAPP bundle says what is carried, names, kinds and the rate.  rsl_rl names its tensors ``obs``
and ``actions``, and ``h_in c_in h_out c_out`` where it has a memory; exporters of Isaac Lab and
mjlab write joint names, resting postures and the action's scale into the metadata, as words with
commas between them.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from wm_core.exporting.answers import OWN_ACTION
from wm_core.exporting.leapp import Bundle
from wm_core.exporting.network import Network

Draft = dict[str, Any]  #: answers as they stand in YAML, with ``UNKNOWN`` where one is missing

UNKNOWN = "?"
_ACTIONS = ("actions", "action", "mean_actions", "continuous_actions", "output", "mu", "mean")
_STATE = (("{}_in", "{}_out"), ("{}", "next_{}"), ("{}", "{}_next"), ("{}", "{}_out"))
_OWN = ("actions", "last_action", "last_actions", "prev_actions")
_UNITS = {
    "target/joint/position": "rad", "target/joint/velocity": "rad/s",
    "target/joint/effort": "N m", "target/joint/torques": "N m",
}  # fmt: skip
_RANGE = ("scale", "default", "low", "high")
_THREE = (
    "base_lin_vel", "base_ang_vel", "projected_gravity", "command", "velocity_commands",
    "velocity_command", "twist", "imu_ang_vel", "gravity",
)  # fmt: skip


class Question(NamedTuple):
    """Asks for one answer that the file does not give."""

    path: tuple[str, ...]  #: where it stands in the answers
    text: str


def draft(network: Network) -> Draft:
    """Write down what the file tells; ``UNKNOWN`` stands where it tells nothing."""
    bundle = network.bundle
    state = _states(network) if bundle is None else bundle.state
    fed = {entry["input"] for entry in state}
    carried = fed | {entry["output"] for entry in state}
    outputs = [name for name in network.outputs if name not in carried]
    if bundle is not None:
        outputs = bundle.outputs
    output = next((name for name in _ACTIONS if name in outputs), None)
    if output is None:
        output = outputs[0] if len(outputs) == 1 else UNKNOWN
    return {
        "trainer": _trainer(network),
        "period_s": UNKNOWN if bundle is None else bundle.period_s or UNKNOWN,
        "inputs": {name: _input(network, name) for name in network.inputs if name not in fed},
        "action": _action(network, output),
        "state": state,
    }


def questions(answers: Draft) -> list[Question]:
    """List what is still ``UNKNOWN``, in the order of the answers."""
    return [*_unknown(settled(answers), ())]


def settled(answers: Draft) -> Draft:
    """Leave out what other answers make needless: a range of choices, parts of a picture."""
    action, inputs = answers.get("action"), answers.get("inputs")
    if isinstance(action, dict) and action.get("kind", "continuous") != "continuous":
        action = {k: v for k, v in action.items() if v != UNKNOWN or k not in _RANGE}
    if isinstance(inputs, dict):
        inputs = {
            name: {k: v for k, v in given.items() if v != UNKNOWN or k not in _other(given)}
            if isinstance(given, dict)
            else given
            for name, given in inputs.items()
        }
    return answers | {"action": action, "inputs": inputs}


def _other(given: Draft) -> tuple[str, ...]:
    return ("parts",) if {"image", "episode_start"} & {*given} else ()


def _unknown(value: Any, path: tuple[str, ...]) -> list[Question]:
    if value == UNKNOWN:
        return [Question(path, f"{'.'.join(path)}: {_TEXTS[path[-1]]}")]
    items = value.items() if isinstance(value, dict) else ()
    return [question for key, inner in items for question in _unknown(inner, (*path, key))]


_TEXTS = {
    "period_s": "seconds from one decision to the next, such as 0.02",
    "normalisation": "are observations normalised inside the file? inside, none or given",
    "output": "which output is the action?",
    "low": "least command that may ever be sent, one number or one for each element",
    "high": "greatest command that may ever be sent, one number or one for each element",
    "scale": "command units for each unit of the output, one number or one for each element",
    "default": "command where the output is 0, such as the resting posture",
    "layout": "order of the picture's axes: NHWC or NCHW",
    "names": "name of each choice, in the order of their indices",
    "groups": "how many there are to choose from, for each choice, such as 3, 2",
    "parts": "what the numbers are, in order: [{name: joints, size: 12, scale: 1.0}, ...]",
}


def _states(network: Network) -> list[dict[str, str]]:
    """Pair the inputs and outputs whose names and shapes say that one follows the other."""
    found = []
    for name, info in network.inputs.items():
        for given, got in _STATE:
            match = re.fullmatch(given.replace("{}", "(.+)"), name)
            output = got.format(match[1]) if match else ""
            if output in network.outputs and network.outputs[output].shape == info.shape:
                found.append({"input": name, "output": output})
                break
    return found


def _trainer(network: Network) -> str:
    if network.bundle is not None:
        return "leapp"
    if {"obs", "actions"} <= {*network.inputs, *network.outputs}:
        return "rsl_rl"
    return "other"


def _input(network: Network, name: str) -> Draft:
    info = network.inputs[name]
    if len(info.shape) == 4:
        pixels = 1.0 if info.dtype == "uint8" else UNKNOWN
        layout = "NCHW" if info.shape[1] in (1, 3) and info.shape[3] not in (1, 3) else UNKNOWN
        layout = "NHWC" if info.shape[3] in (1, 3) and info.shape[1] not in (1, 3) else layout
        image = {"name": "image", "layout": layout, "scale": pixels}
        return {"image": image, "normalisation": UNKNOWN}
    total = 1
    for size in info.shape:
        total *= size
    parts: Any = _terms(network, total)
    if network.bundle is not None:  # its inputs are what sensors give, one by one
        names = network.bundle.names.get(name, [])
        part = {"name": name, "size": total} | ({"names": names} if len(names) == total else {})
        return {"parts": [part], "normalisation": "inside"}
    return {"parts": parts or UNKNOWN, "normalisation": UNKNOWN}


def _terms(network: Network, total: int) -> list[Draft]:
    """The parts that the metadata names, where their sizes make up the input."""
    terms, joints = _words(network, "observation_names"), _words(network, "joint_names")
    posture, parts = _numbers(network, "default_joint_pos"), list[Draft]()
    for term in terms:
        part: Draft = {"name": term, "size": 3 if term in _THREE else len(joints)}
        if term in _OWN:
            part["name"] = OWN_ACTION
        elif term == "command":  # a policy's output has that name
            part["name"] = "wanted_velocity"
        elif term.startswith("joint_"):
            part["names"] = joints
            if term in ("joint_pos", "joint_pos_rel") and posture:
                part["default"] = posture
        parts.append(part)
    return parts if sum(part["size"] for part in parts) == total else []


def _action(network: Network, output: str) -> Draft:
    answer: Draft = {"output": output}
    if output in network.outputs and network.outputs[output].dtype == "int64":
        several = math.prod(network.outputs[output].shape) > 1
        return answer | {"kind": "index", "groups" if several else "names": UNKNOWN}
    if network.bundle is not None:
        answer |= _bundled(network.bundle, output)
    elif joints := _words(network, "joint_names"):
        answer |= {"names": joints, "units": ["rad"] * len(joints)}
    return {
        "scale": _numbers(network, "action_scale") or UNKNOWN,
        "default": _numbers(network, "default_joint_pos") or UNKNOWN,
        "low": UNKNOWN,
        "high": UNKNOWN,
    } | answer


def _bundled(bundle: Bundle, output: str) -> Draft:
    """What a bundle says of its command: a target is in the robot's own units already."""
    names, kind = bundle.names.get(output, []), bundle.kinds.get(output, "")
    answer: Draft = {"names": names} if names else {}
    if kind.startswith("target/"):
        answer |= {"scale": 1.0, "default": 0.0}
        if names and kind in _UNITS:
            answer["units"] = [_UNITS[kind]] * len(names)
    return answer


def _words(network: Network, key: str) -> list[str]:
    text = network.metadata.get(key, "").strip("[]")
    return [word.strip(" '\"") for word in text.split(",") if word.strip()]


def _numbers(network: Network, key: str) -> list[float]:
    try:
        return [float(word) for word in _words(network, key)]
    except ValueError:
        return []
