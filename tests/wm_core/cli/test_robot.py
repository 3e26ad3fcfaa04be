"""``wm robot``: what a file means, what is wrong with it, and that a robot can run it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wm_core.cli.main import main
from wm_core.contract.spec import Spec
from wm_core.robot.schema import schema_text

ROOT = Path(__file__).parents[3]
TEXT = """\
robot: arm
rate_hz: 25
observations:
  image: {type: sensor_msgs/Image, topic: camera/image_raw}
  proprio: {type: sensor_msgs/JointState, joints: [a, b]}
actions:
  - {type: std_msgs/Float64MultiArray, topic: arm/commands, names: [a, b], mode: position,
     low: -1, high: 1, max_rate: 2, safe: [0.5, 0]}
  - {type: gripper, topic: hand, open: 0.08, closed: 0}
values: {touch: {topic: touch, type: std_msgs/Bool}}
reward: {expression: "touch - 0.1 * a"}
episode: {max_s: 20, terminal_if: "a > 2", reset: {service: home}, autostart: false}
"""


@pytest.fixture
def file(tmp_path):
    """A robot file."""
    path = tmp_path / "robot.yaml"
    path.write_text(TEXT)
    return path


def test_check_says_what_a_file_means(file, capsys):
    assert main(["robot", "check", str(file)]) == 0
    said = capsys.readouterr().out
    for part in (
        f"{file} is right",
        "25 Hz, paced by image",
        "64 x 64 rgb",
        "2 numbers",
        "arm/commands  std_msgs/Float64MultiArray",
        "position  -1 .. 1 rad, changes by at most 2 rad per second",
        "safe action: the posture [0.5, 0.0]",
        "reward      touch - 0.1 * a",
        "ends when 20 s have passed or a > 2 or ~/episode/end is called",
        "then home is called",
    ):
        assert part in said


def test_check_lists_the_errors_of_every_file_and_leaves_with_2(file, tmp_path, capsys):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(TEXT.replace("rate_hz: 25", "rate_hz: x").replace("low: -1", "low: 1"))
    assert main(["robot", "check", str(wrong), str(file)]) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        f"{wrong}:2: rate_hz: expected a number, got 'x'",
        f"{wrong}:8: actions[0].low: expected less than high for 'a', got 1 .. 1",
    ]
    assert f"{file} is right" in shown.out


def test_spec_prints_what_train_reads(file, capsys):
    assert main(["robot", "spec", str(file), "--json"]) == 0
    spec = Spec.model_validate_json(capsys.readouterr().out)
    assert spec.action.names == ("a", "b", "gripper")
    assert spec.period_s == 0.04
    assert main(["robot", "spec", str(file)]) == 0
    assert "(64, 64, 3) uint8" in capsys.readouterr().out


def test_a_wrong_word_is_a_usage_and_status_2(capsys):
    assert main(["robot", "chek"]) == 2
    assert "usage: wm robot" in capsys.readouterr().err


def test_the_shipped_schema_is_that_of_the_code(capsys):
    assert main(["robot", "schema"]) == 0
    assert capsys.readouterr().out == schema_text()
    shipped = json.loads((ROOT / "launch" / "robot.schema.json").read_text())
    assert texts(shipped) == texts(json.loads(schema_text())), (
        "write it anew: wm robot schema > launch/robot.schema.json"
    )


def texts(schema):
    """Names and descriptions of all fields, which every version of pydantic writes alike."""
    entries = {"the file": schema, **schema["$defs"]}
    return {
        name: {field: about.get("description") for field, about in entry["properties"].items()}
        for name, entry in entries.items()
    }


def test_an_editor_with_the_schema_accepts_the_file_and_marks_a_typo(file):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    document = yaml.safe_load(TEXT)
    assert list(validator.iter_errors(document)) == []
    document["actions"][0]["max_rat"] = 1
    document["rate_hz"] = "fast"
    assert len(list(validator.iter_errors(document))) >= 2


def test_it_runs_where_neither_tyro_nor_rich_nor_torch_is_installed(file):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['tyro', 'rich', 'torch']))\n"
        "from wm_core.cli.main import main\n"
        f"raise SystemExit(main(['robot', 'check', {str(file)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
