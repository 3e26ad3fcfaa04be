"""Holds a policy's spec against a robot's file, before the policy may drive the robot."""

from __future__ import annotations

from wm_core.contract.errors import SpecMismatch, nearest
from wm_core.contract.spec import Spec
from wm_core.robot.robot_file import RobotFile


def check_fits(robot: RobotFile, spec: Spec) -> None:
    """Raise ``SpecMismatch`` for a policy that this robot cannot run.

    The policy may use fewer inputs than the file has.  Each that it uses has the kind, size and,
    where the policy states them, the names of the file; so has the action.  A range or rate of the
    policy may differ: the node keeps commands within both.

    Args:
        robot: the file.
        spec: of the policy.
    """
    wrong = [*_wrong_inputs(robot, spec), *_wrong_action(robot, spec)]
    if wrong:
        raise SpecMismatch(f"the policy does not fit the robot file: {'; '.join(wrong)}")


def _wrong_inputs(robot: RobotFile, spec: Spec) -> list[str]:
    wrong = []
    for name, image in spec.images.items():
        if name not in robot.images:
            wrong.append(nearest(name, robot.images, what="image of the policy"))
        elif robot.images[name].input() != image:
            own = robot.images[name].input()
            wrong.append(f"input {name!r}: the file says {own!r}, the policy {image!r}")
    for name, vector in spec.vectors.items():
        if name not in robot.vectors:
            wrong.append(nearest(name, robot.vectors, what="vector of the policy"))
            continue
        own_names = robot.names_of(name)
        if vector.size != len(own_names):
            wrong.append(
                f"input {name!r}: the file gives {len(own_names)} numbers {[*own_names]}, "
                f"the policy wants {vector.size} {[*vector.names]}"
            )
        elif vector.names and vector.names != own_names:
            wrong.append(
                f"input {name!r}: the file gives {[*own_names]}, the policy wants "
                f"{[*vector.names]}, in this order"
            )
    return wrong


def _wrong_action(robot: RobotFile, spec: Spec) -> list[str]:
    action = spec.action
    if action.groups:
        return [
            f"the policy has {action.kind} at once, which a robot file cannot say; send their "
            "indices by command_type index, without a robot file"
        ]
    if action.discrete != bool(robot.choices):
        kinds = {True: "one of several choices", False: "continuous"}
        return [f"the file's action is {kinds[bool(robot.choices)]}, the policy's is not"]
    own = robot.choices or tuple(name for channel in robot.actions for name in channel.names)
    if action.size != len(own):
        return [f"the file has the actions {[*own]}, the policy {action.size} {[*action.names]}"]
    if action.names and action.names != own:
        return [
            f"the file has the actions {[*own]}, the policy {[*action.names]}, in this order; "
            "names of a channel says what its elements are called"
        ]
    stops, noop = robot.stopping_choices, int(action.zero_command[0])
    if stops and noop not in stops:
        return [
            f"noop: expected the choice that stops the robot, {stops[0]} ({own[stops[0]]!r}), the "
            f"policy says {noop} ({own[noop]!r}); see whether its choices have the file's order, "
            f"then export it with noop {stops[0]}"
        ]
    return []
