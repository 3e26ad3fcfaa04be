"""Robot files and what bags become."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.wm_ros.recorded.bags import ROBOT, write_bag
from wm_core.recordings.options import ReadOptions
from wm_ros.recorded.reader import open_source


@pytest.fixture
def play(tmp_path):
    """Make a bag of messages and read it: its episodes, what was left out, and what is said."""

    def play(messages, robot=ROBOT, **options):
        (tmp_path / "robot.yaml").write_text(robot)
        bag = tmp_path / f"bag{len(list(tmp_path.iterdir()))}"
        write_bag(bag, messages)
        source = open_source(bag, ReadOptions(robot=tmp_path / "robot.yaml", **options))
        episodes = [list(episode) for episode in source.episodes()]
        return SimpleNamespace(
            episodes=episodes,
            steps=[step for episode in episodes for step in episode],
            left_out=source.left_out,
            notes=source.notes,
            source=source,
        )

    return play
