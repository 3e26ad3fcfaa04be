"""Values of parameters are fitted or refused by one line that says where they stand; no ROS."""

from __future__ import annotations

import pytest

from wm_core.contract.errors import SettingsError
from wm_ros.parameters import params
from wm_ros.parameters.given import fit_all, unused_files, where

TABLE = {param.name: param for param in (*params.POLICY, *params.SIM)}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_obs_age_s", -1, r"expected|-1"),
        ("period_s", 1, "1.0"),
        ("frozen_frames", 20, "20"),
        ("sensors", ("image",), "['image']"),
        ("upload.bytes_per_s", 200_000, "200000.0"),
        ("latch_safe", True, "True"),
    ],
)
def test_a_value_that_means_the_right_thing_is_taken(name, value, expected):
    got = TABLE[name].fitted(value)
    assert type(got) is type(TABLE[name].default)
    assert got == (list(value) if isinstance(value, tuple) else value)
    assert expected == r"expected|-1" or repr(got) == expected


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("robot", 7, "expected text, got 7; write it in quotes: '7'"),
        ("safe_action", False, "expected text, got false (YAML reads on, off"),
        ("policy_dir", 1.5, "expected text, got 1.5"),
        ("frozen_frames", 5000, "expected a whole number from 0 to 1000, got 5000"),
        ("frozen_frames", 5.0, "expected a whole number from 0 to 1000, got 5.0"),
        ("frozen_frames", True, "got true"),
        ("max_gap_s", float("nan"), "expected a number from 0 to 60, got nan"),
        ("max_gap_s", "0.5", "expected a number from 0 to 60, got '0.5'"),
        ("max_gap_s", -0.1, "got -0.1"),
        ("latch_safe", "yes", "expected true or false, got 'yes'"),
        ("latch_safe", 1, "expected true or false, got 1"),
        ("sensors", "image", "expected a list of words, as in [a, b], got 'image'"),
        ("sensors", [1, 2], "expected a list of words"),
        ("sensors", False, "expected a list of words"),
        ("twist_fields", ["linear.x", "angular.w"], "did you mean 'angular."),
        ("safe_action", "hodl", "did you mean 'hold'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_was_expected_and_what_came(
    name, value, said
):
    with pytest.raises(SettingsError) as refusal:
        TABLE[name].fitted(value)
    text = str(refusal.value)
    assert said in text
    assert name in text
    assert "\n" not in text


def test_every_parameter_refuses_every_other_type_by_one_line():
    samples = (True, 3, 3.5, "word", ["word"], [1, 2], b"bytes", None)
    said = []
    for param in TABLE.values():
        for value in samples:
            try:
                assert type(param.fitted(value)) is type(param.default)
            except SettingsError as error:
                said.append((param.name, str(error)))
    assert len(said) > 3 * len(TABLE)
    assert all(name in text and "\n" not in text for name, text in said)


def test_the_place_of_a_wrong_value_is_said(tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    upload: {bytes_per_s: fast}\n    robot: 7\n")
    argv = ["node", "--ros-args", "--params-file", str(file), "-p", "policy:seed:=x"]
    assert where("robot", argv) == f"in {file}, line 4"
    assert where("upload.bytes_per_s", argv) == f"in {file}, line 3"
    assert where("seed", argv) == "on the command line"
    assert where("period_s", argv) == ""
    at_launch = tmp_path / "launch_params_x1"
    at_launch.write_text("/**:\n  ros__parameters:\n    robot: 8\n")
    assert where("robot", [*argv, "--params-file", str(at_launch)]) == "given at launch"
    assert where("robot", ["node", "--params-file", str(tmp_path / "missing")]) == ""


def test_several_wrong_values_are_listed_together():
    with pytest.raises(SettingsError, match=r"'robot'.*'seed'"):
        fit_all({"robot": 7, "seed": "x", "unknown": 1}, TABLE, [])


@pytest.mark.parametrize(
    ("sections", "used"),
    [
        ("/**:\n  ros__parameters: {seed: 1}\n", True),
        ("/robot1/policy:\n  ros__parameters: {seed: 1}\n", True),
        ("/robot1:\n  policy:\n    ros__parameters: {seed: 1}\n", True),
        ("/*/policy:\n  ros__parameters: {seed: 1}\n", True),
        ("/robot1/**:\n  ros__parameters: {seed: 1}\n", True),
        ("policy:\n  ros__parameters: {seed: 1}\n", False),  # that is /policy
        ("/robot2/policy:\n  ros__parameters: {seed: 1}\n", False),
        ("/**/polcy:\n  ros__parameters: {seed: 1}\n", False),
        ("sim:\n  ros__parameters: {a: 1}\n/**:\n  ros__parameters: {seed: 1}\n", True),
        ("", True),
        ("a: [", True),
    ],
)
def test_a_parameter_file_for_other_nodes_is_named(tmp_path, sections, used):
    file = tmp_path / "robot.yaml"
    file.write_text(sections)
    said = unused_files(["node", "--ros-args", "--params-file", str(file)], "/robot1/policy")
    assert (said == []) == used
    assert all(str(file) in text and "/robot1/policy" in text for text in said)
