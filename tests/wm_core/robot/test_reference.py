"""Every robot file that the documentation shows is right."""

import re
from pathlib import Path

import pytest

from wm_core.robot.reading import read_text
from wm_core.robot.robot_file import RobotFile

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "robot_file.md").read_text()
SHOWN = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "robot:" in text]
SHIPPED = sorted((ROOT / "examples" / "robots").glob("*.yaml"))


@pytest.mark.parametrize("text", SHOWN, ids=lambda text: text.splitlines()[0])
def test_a_file_of_the_reference_is_right_and_gives_a_spec(text):
    assert read_text(RobotFile, text).spec().action.size > 0


def test_the_reference_shows_one_file_for_each_kind_of_robot():
    assert len(SHOWN) == 4


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_robot_is_right_and_gives_a_spec(path):
    assert RobotFile.load(path).spec().action.size > 0
