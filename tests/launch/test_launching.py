"""Arguments of the launch files, read without ROS."""

from __future__ import annotations

import pytest

from wm_core.contract.errors import SettingsError
from wm_ros.process.launching import driver_path, remappings, robot_path


@pytest.mark.parametrize(
    ("camera_topic", "remap", "expected"),
    [
        ("", "", []),
        ("/camera/image_raw", "", [("image_raw", "/camera/image_raw")]),
        ("", "a:=b c:=/d/e", [("a", "b"), ("c", "/d/e")]),
        ("", "a:=b,c:=d; e:=f ", [("a", "b"), ("c", "d"), ("e", "f")]),
        ("cam", "~/stop:=/stop", [("image_raw", "cam"), ("~/stop", "/stop")]),
    ],
)
def test_rules_are_read(camera_topic, remap, expected):
    assert remappings(camera_topic, remap) == expected


@pytest.mark.parametrize("remap", ["a", "a=b", "a:=", ":=b", "a:=b:=c", "a:=b c:d"])
def test_what_is_no_rule_is_refused(remap):
    with pytest.raises(SettingsError, match="expected rules such as cmd_vel:=base/cmd_vel"):
        remappings("", remap)


def test_two_rules_for_one_name_are_refused():
    with pytest.raises(SettingsError, match="one rule for image_raw"):
        remappings("cam", "image_raw:=other")


def test_a_robot_file_is_found_by_its_path_or_by_the_name_of_one_that_comes_along(tmp_path):
    shipped, own = tmp_path / "robots", tmp_path / "mine.yaml"
    shipped.mkdir()
    for path in (shipped / "arm.yaml", own):
        path.write_text("robot: x\n")
    assert robot_path("", shipped) == ""
    assert robot_path(str(own), shipped) == str(own)
    for name in ("arm", "arm.yaml"):
        assert robot_path(name, shipped) == str(shipped / "arm.yaml")
    with pytest.raises(SettingsError, match=r"no file 'amr'; those that come along: arm"):
        robot_path("amr", shipped)


def test_the_launch_file_of_a_driver_that_does_not_exist_is_named_with_its_argument(tmp_path):
    driver = tmp_path / "driver.launch.py"
    driver.write_text("")
    assert driver_path(str(driver)) == str(driver)
    for wrong in (tmp_path / "missing.py", tmp_path):
        with pytest.raises(SettingsError, match=f"driver_launch: no file '{wrong}'"):
            driver_path(str(wrong))
