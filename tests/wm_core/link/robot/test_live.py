"""The thread that tells the trainer how the robot is doing, beside a real service."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from wm_core.contract.live import MAX_CAMERAS, MAX_REPORT_BYTES, LiveReport
from wm_core.link.robot.client import TrainerClient
from wm_core.link.robot.live import (
    SIDE,
    LiveSender,
    LiveSettings,
    LiveSnapshot,
    _Pictures,
    jpeg_of,
    rest_in_s,
)
from wm_core.link.trainer.tokens import add_token

QUICK = LiveSettings(rate_hz=20.0, backoff_first_s=0.02, backoff_most_s=0.1)


class Robot:
    """A robot whose newest state the test sets; counts how often it was looked at."""

    def __init__(self):
        self.policy, self.looks, self.pictures = 0, 0, 0
        self.images = {"front": (7, np.full((48, 64, 3), 200, np.uint8))}

    def snapshot(self, pictures):
        self.looks += 1
        self.pictures += pictures
        return LiveSnapshot(
            LiveReport(t_ns=1, policy=self.policy), self.images if pictures else {}
        )


@pytest.fixture
def robot():
    return Robot()


@pytest.fixture
def live(closing, robot):
    """Starts the thread of ``robot``."""

    def start(url, **more):
        defaults = {"robot": "rover", "snapshot": robot.snapshot, "settings": QUICK}
        return closing(LiveSender(url, **defaults | more))

    return start


@pytest.fixture
def look():
    """Asks a service what it heard."""

    def ask(service, token=None):
        with contextlib.closing(TrainerClient(service.url, token=token)) as client:
            return json.loads(client.request("GET", "/v1/live").body)["robots"]

    return ask


def test_pictures_come_while_somebody_watches_and_stop_when_nobody_does(
    serve, live, robot, look, wait_until
):
    service = serve()
    sender = live(service.url)
    wait_until(lambda: sender.counters()["sent"] >= 1)
    assert robot.pictures == 0
    wait_until(lambda: look(service)["rover"]["report"]["cameras"])
    camera = look(service)["rover"]["report"]["cameras"]["front"]
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(camera["jpeg"]))))
    assert camera["t_ns"] == 7
    assert seen.shape == (48, 64, 3)
    assert abs(int(seen.mean()) - 200) < 4
    wait_until(lambda: not sender.watched)
    before, sent = robot.pictures, sender.counters()["sent"]
    wait_until(lambda: sender.counters()["sent"] > sent)
    assert robot.pictures == before


def test_only_the_newest_state_is_sent_and_a_restart_of_the_trainer_is_survived(
    serve, live, robot, look, wait_until
):
    first = serve()
    port = int(first.url.rpartition(":")[2])
    live(first.url)
    wait_until(lambda: "rover" in look(first))
    first.close()
    for robot.policy in range(50):
        pass
    second = serve(port=port)
    wait_until(lambda: "rover" in look(second))
    assert look(second)["rover"]["report"]["policy"] == 49


def test_a_robot_without_a_valid_token_says_why_and_goes_on(serve, live, tmp_path, wait_until):
    add_token(tmp_path / "tokens", "rover")
    sender = live(serve(tokens=tmp_path / "tokens").url, token="0" * 43)
    wait_until(lambda: "Bearer" in sender.counters()["last_error"])
    assert sender.counters()["refused"] >= 1


def test_a_trainer_that_knows_no_live_reports_is_asked_seldom(answering, live, robot, wait_until):
    server = answering(lambda request: (404, b'{"verdict": "no_route"}'))
    sender = live(server.url)
    wait_until(lambda: sender.counters()["refused"] >= 1)
    assert not sender._stop.wait(0.5)
    assert robot.looks == 1


def test_a_page_of_something_in_between_is_no_trainers(answering, live, wait_until):
    sender = live(answering(lambda request: (200, b"<html>")).url)
    wait_until(lambda: "not of a trainer" in sender.counters()["last_error"])
    assert not sender.watched


def test_a_trainer_of_many_robots_is_told_as_seldom_as_it_asks(answering, live, wait_until):
    for asked, rests in ((b"30", True), (b"0.0001", False), (b"1e9", False), (b'"a"', False)):
        body = b'{"watched": false, "every_s": ' + asked + b"}"
        server = answering(lambda request, body=body: (200, body))
        sender = live(server.url)
        wait_until(lambda sender=sender: sender.counters()["sent"] >= 1)
        assert (sender._unwatched_s == 30.0) == rests
        sender.close()


def test_closing_ends_an_open_request(check_close, robot):
    def start(url, **deadlines):
        settings = LiveSettings(**deadlines)
        return LiveSender(url, robot="rover", snapshot=robot.snapshot, settings=settings)

    check_close(start, "live")


def test_a_fault_of_the_snapshot_does_not_end_the_thread(serve, live, robot, look, wait_until):
    service, works = serve(), threading.Event()

    def snapshot(pictures):
        if not works.is_set():
            works.set()
            raise RuntimeError("a fault")
        return robot.snapshot(pictures)

    live(service.url, snapshot=snapshot)
    wait_until(lambda: "rover" in look(service))


@pytest.mark.parametrize("shape", [(64, 64, 3), (480, 640, 3), (2000, 100, 3), (1, 4000, 3)])
def test_pictures_are_at_most_128_pixels_a_side(shape):
    data = jpeg_of(np.zeros(shape, np.uint8))
    width, height = Image.open(io.BytesIO(data)).size
    assert max(width, height) <= SIDE
    if max(shape) <= SIDE:
        assert (height, width) == shape[:2]


def test_more_pictures_than_fit_take_turns_and_an_old_one_is_not_encoded_again():
    rng = np.random.default_rng(0)
    images = {
        f"camera_{i:02}": (i, rng.integers(0, 256, (128, 128, 3), np.uint8)) for i in range(30)
    }
    pictures, seen = _Pictures(), set()
    for _ in range(4):
        found = pictures.encode(images)
        assert 0 < len(found) <= MAX_CAMERAS
        report = LiveReport(t_ns=1).model_copy(update={"cameras": found})
        assert len(report.model_dump_json()) < MAX_REPORT_BYTES
        seen |= found.keys()
    assert seen == images.keys()
    few = {"camera_00": images["camera_00"]}
    assert pictures.encode(few)["camera_00"] is pictures.encode(few)["camera_00"]


def test_a_report_waits_for_the_moment_behind_a_tick_and_for_no_loop_that_stands_still():
    assert rest_in_s(0.001, 0.02) == 0.0
    assert rest_in_s(0.015, 0.02) == pytest.approx(0.006)
    assert rest_in_s(0.035, 0.02) == pytest.approx(0.006)
    assert [rest_in_s(s, 0.02) for s in (-1.0, 0.0, 0.07, 1e9)] == [0.0] * 4
    assert rest_in_s(1.0, 0.0) == 0.0
