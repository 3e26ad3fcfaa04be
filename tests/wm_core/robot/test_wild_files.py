"""Whatever stands in a robot file, it is read or refused with the place, and never a traceback."""

import random

import pytest
import yaml

from tests.wm_core.robot.test_reference import SHOWN
from wm_core.contract.errors import SettingsError
from wm_core.robot.reading import read_text
from wm_core.robot.robot_file import RobotFile

#: what may stand in place of a value
ODD = [
    *(None, True, False, 0, -1, 1e30, -0.5, "", "x", "1e-3", "a b", "\n", "é", "~", "[", "0x1f"),
    *([], {}, [[]], [None], {"type": 1}, {"type": "prev_action"}, {1: 2}, {"": ""}, [1, "a"]),
    *(float("nan"), float("inf"), 10**400, "off", "zero", "hold", [0.0], "__import__('os')"),
]


def places(node, path=()):
    """Every path in a document, the containers too."""
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(document, path, act):
    """Change the entry at ``path``, as ``act(container, key)`` does."""
    node = document
    for key in path[:-1]:
        node = node[key]
    act(node, path[-1])


def mutants(text, count, rng):
    """Files that differ from a right one in one or two places."""
    for _ in range(count):
        document = yaml.safe_load(text)
        for _ in range(rng.choice([1, 1, 2])):
            path = rng.choice(list(places(document)))
            odd = rng.choice(ODD)
            kind = rng.randrange(3)
            if kind == 0:
                changed(document, path, lambda node, key, odd=odd: node.__setitem__(key, odd))
            elif kind == 1:
                changed(document, path, lambda node, key: node.__delitem__(key))
            else:
                changed(
                    document,
                    path,
                    lambda node, key, odd=odd: (
                        node.append(odd)
                        if isinstance(node, list)
                        else node.update({f"{key}x": odd})
                    ),
                )
            if not document:
                break
        yield yaml.safe_dump(document)


@pytest.mark.parametrize("text", SHOWN, ids=lambda text: text.splitlines()[0])
def test_a_file_that_was_spoilt_is_read_or_refused_by_line(text):
    rng = random.Random(7)
    refused = 0
    for spoilt in mutants(text, 80, rng):
        try:
            read_text(RobotFile, spoilt)
        except SettingsError as error:
            refused += 1
            for line in str(error).splitlines():
                assert line.startswith(("robot.yaml:", "and ")), f"{line}\n{spoilt}"
    assert refused > 30  # most changes are mistakes, and mistakes are found


@pytest.mark.parametrize("text", SHOWN, ids=lambda text: text.splitlines()[0])
def test_a_file_that_was_cut_or_garbled_is_read_or_refused(text):
    rng, said = random.Random(3), []
    for _ in range(50):
        place = rng.randrange(len(text))
        garbled = text[:place] + rng.choice(
            ["", "{", "]", ": ", "\t", "&a *a", "!x ", "\x00", "'"]
        )
        if rng.random() < 0.5:
            garbled += text[place + rng.randrange(3) :]
        try:
            read_text(RobotFile, garbled)
        except SettingsError as error:
            said.append(str(error))
    assert said
    assert all(text.startswith("robot.yaml") for text in said)
