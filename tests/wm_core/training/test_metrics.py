"""Numbers and videos of a run."""

import io
import json

import numpy as np
import torch
from PIL import Image

from wm_core.training.gif import gif
from wm_core.training.loggers.base import Loggers, RunAbout, find_loggers
from wm_core.training.metrics import MetricLog


def lines(run):
    return [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_line_holds_the_mean_of_the_updates_since_the_last(tmp_path):
    log = MetricLog(tmp_path)
    log.add({"loss": torch.tensor(1.0)})
    log.add({"loss": torch.tensor(3.0)})
    log.write({"updates": 2, "agent_steps": 10})
    log.add({"loss": torch.tensor(5.0)})
    log.write({"updates": 3, "agent_steps": 10}, {"eval/return": 7.0})
    log.close()
    first, second = lines(tmp_path)
    assert (first["loss"], second["loss"], second["eval/return"]) == (2.0, 5.0, 7.0)


def test_lines_beyond_the_checkpoint_are_dropped_on_resume(tmp_path):
    log = MetricLog(tmp_path)
    for updates in (10, 20, 30):
        log.write({"updates": updates, "agent_steps": 0})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"updates": 40, "agen')  # cut short by a kill
    log = MetricLog(tmp_path, resume_at=20)
    log.write({"updates": 30, "agent_steps": 0})
    log.close()
    assert [line["updates"] for line in lines(tmp_path)] == [10, 20, 30]


def test_what_is_not_finite_is_null_in_json(tmp_path):
    log = MetricLog(tmp_path)
    log.write({"updates": 1, "agent_steps": 0}, {"x": float("nan")})
    log.close()
    assert lines(tmp_path)[0]["x"] is None


def test_a_video_is_an_animated_gif(tmp_path):
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    frames[2:] = 200
    image = Image.open(io.BytesIO(gif(frames, fps=20)))
    assert image.n_frames == 2 or image.n_frames == 4  # equal neighbours may be merged
    log = MetricLog(tmp_path, Loggers(find_loggers(["tensorboard"]), RunAbout(tmp_path)))
    log.video("imagined", frames, updates=3, agent_steps=30, fps=20)
    log.close()
    assert any((tmp_path / "tb").iterdir())
