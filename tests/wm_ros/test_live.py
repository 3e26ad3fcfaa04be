"""What a robot says of itself while somebody watches it."""

from __future__ import annotations

import base64
import io
import json
import time
from contextlib import ExitStack, closing

import numpy as np
import pytest
from PIL import Image

from wm_core.contract.inputs import Depth
from wm_core.contract.spec import Spec
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.client import TrainerClient
from wm_core.link.trainer.tokens import add_token
from wm_ros.assembly import Assembly
from wm_ros.control_loop import Outside, Tick
from wm_ros.pilot import Decision
from wm_ros.robot import robot_of
from wm_ros.settings import PolicySettings, SensorSettings

COUNTING = {"task": "counting_task:Counting-v0"}


@pytest.fixture
def assembled(tmp_path, policy_at):
    """Joins the parts of a robot with a tiny policy, without ROS and without a tick."""
    closers = ExitStack()

    def build(sensors=("image",), settings=None, **policy):
        folder = policy_at(tmp_path / "policy", **policy)
        kinds = {
            n: SensorSettings(type="depth" if n == "depth" else "camera", topic=f"/{n}")
            for n in sensors
        }
        outside = Outside(
            simulated=False,
            ros_now_ns=time.time_ns,
            publish=lambda decision: None,
            wake_at=lambda when_ns: None,
            say=lambda level, text: None,
            report_soon=lambda: None,
        )
        given = PolicySettings(policy_dir=str(folder), sensors=sensors, **(settings or {}))
        parts = Assembly(robot_of(given, kinds), tmp_path, outside)
        parts.start(closers, lambda: None)
        parts.loop.active = True
        return parts

    with closers:
        yield build


def ticked(parts, command, safe=None, obs=None, **more):
    """Let the parts look as after a tick that came to ``command``."""
    decision = Decision(command, 1, safe, obs=obs or {}, **more)
    parts.loop.newest = Tick(decision, 5.0, time.monotonic_ns())
    if safe is not None:
        parts.loop.newest_safe = parts.loop.newest
    parts.board.report()


def test_a_robot_without_a_policy_says_so_and_nothing_of_an_action(tmp_path):
    settings = PolicySettings(policy_dir=str(tmp_path / "none"))
    outside = Outside(False, time.time_ns, print, print, print, print)
    parts = Assembly(robot_of(settings, {"image": SensorSettings()}), tmp_path, outside)
    report, images = parts.stream.snapshot(True)
    assert (report.mode, report.policy, report.action, images) == ("inactive", -1, (), {})
    parts.stream.close()


def test_a_command_is_told_in_physical_units_with_its_limits_and_names(assembled):
    parts = assembled()
    ticked(parts, np.array([0.25, np.nan], np.float32))
    report = parts.stream.snapshot(False).report
    assert report.mode == "acts"
    assert report.action == (0.25, None)
    assert report.action_low == (-0.5, -2.0)
    assert report.action_high == (1.0, 2.0)
    assert report.action_names == ("forward", "turn")
    assert report.observation_age_ms == 5.0
    assert report.safe_action is None


def test_a_choice_is_told_as_one_of_its_names(assembled, choosing):
    parts = assembled(settings={"command_type": "index"}, spec=choosing())
    ticked(parts, np.array([2.0], np.float32))
    report = parts.stream.snapshot(False).report
    assert report.action == (0.0, 0.0, 1.0, 0.0)
    assert report.action_names == ("stop", "forward", "left", "right")


def test_the_last_safe_action_stays_with_its_reason_after_the_policy_acts_again(assembled):
    parts = assembled()
    ticked(parts, np.zeros(2, np.float32), safe="no_frame")
    assert parts.stream.snapshot(False).report.mode == "no_frame"
    ticked(parts, np.zeros(2, np.float32))
    report = parts.stream.snapshot(False).report
    assert (report.mode, report.safe_action.why) == ("acts", "no_frame")
    assert 10**18 < report.safe_action.t_ns < report.t_ns  # since 1970, by one clock


def test_pictures_are_of_the_newest_observation_and_stay_where_a_tick_has_none(assembled, spec_of):
    tiny = spec_of()
    spec = Spec(images={**tiny.images, "depth": Depth(height=8, width=8)}, action=tiny.action)
    parts = assembled(("image", "depth"), spec=spec)
    obs = {
        "image": np.full((32, 32, 3), 7, np.uint8),
        "depth": np.full((8, 8, 1), 3000, np.uint16),
    }
    ticked(parts, np.zeros(2, np.float32), obs=obs)
    assert parts.stream.snapshot(False).images == {}
    images = parts.stream.snapshot(True).images
    assert {name: image.shape for name, (_, image) in images.items()} == {
        "image": (32, 32, 3),
        "depth": (8, 8, 3),
    }
    ticked(parts, np.zeros(2, np.float32), safe="no_frame")
    assert parts.stream.snapshot(True).images == images
    ticked(parts, np.zeros(2, np.float32), obs=dict(obs))
    assert parts.stream.snapshot(True).images["image"][0] > images["image"][0]


def test_what_is_recorded_and_what_waits_is_counted(assembled, tmp_path):
    parts = assembled()
    parts.recorder.skipped["no_frame"] = 3
    ticked(parts, np.zeros(2, np.float32))
    counters = parts.stream.snapshot(False).report.counters
    assert counters["dropped_no_frame"] == 3
    assert counters["disk_free_bytes"] > 0
    assert counters["spool_max_bytes"] == 2_000_000_000
    assert {"steps_recorded", "steps_spooled", "chunks_sealed", "missed_ticks"} <= counters.keys()


# ------------------------------------------------------------------------------ over real ROS


@pytest.fixture
def trainer(tmp_path):
    """Starts the trainer's service with TLS and tokens, and looks at what it hears."""
    trustme = pytest.importorskip("trustme")
    service = pytest.importorskip("wm_core.link.trainer.service", reason="needs train's extra")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pem = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    pem.write_to_path(tmp_path / "service.pem")
    for name in ("tester", "page"):
        token = add_token(tmp_path / "tokens", name, may_look=name == "page")
        (tmp_path / f"token_{name}").write_text(token)

    class Trainer:
        port = 0

        def start(self):
            self.service = service.Service(
                service.ServeSettings(
                    root=tmp_path / "run",
                    port=self.port,
                    tls_cert=tmp_path / "service.pem",
                    tokens=tmp_path / "tokens",
                )
            ).start()
            self.url = self.service.url
            self.port = int(self.url.rpartition(":")[2])

        def look(self):
            access = AccessSettings(ca_file=str(tmp_path / "ca.pem"), proxy="none")
            token = (tmp_path / "token_page").read_text()
            with closing(TrainerClient(self.url, token=token, access=access)) as client:
                reply = client.request("GET", "/v1/live?robot=tester")
            return json.loads(reply.body)["robots"].get("tester", {"age_s": 1e9, "report": {}})

    found = Trainer()
    found.start()
    yield found
    found.service.close()


@pytest.mark.ros
def test_whoever_watches_sees_the_robot_act_and_stop_before_and_after_a_new_trainer(
    processes, watcher, trainer, policy_at, report_of, tmp_path
):
    """Over TLS with tokens; the camera falls silent, and the trainer is started anew."""
    state, policy = tmp_path / "state", policy_at(tmp_path / "policy", version=4)
    params = {
        "state_dir": str(state),
        "policy_dir": str(policy),
        "robot": "tester",
        "trainer_url": trainer.url,
        "token_file": str(tmp_path / "token_tester"),
        "ca_file": str(tmp_path / "ca.pem"),
        "proxy": "none",
        "live.backoff_most_s": 0.5,
    }
    processes.start("sim_node", COUNTING)
    processes.start("policy_node", params)

    def says(ready, what):
        watcher.until(
            lambda: trainer.look()["age_s"] < 5.0 and ready(trainer.look()["report"]), what
        )
        return trainer.look()["report"]

    def acts(report):
        return report["mode"] == "acts" and report["cameras"] and report["observation_age_ms"]

    report = says(acts, "it acts")
    assert (report["policy"], report["action_names"]) == (4, ["forward", "turn"])
    assert len(report["action"]) == 2
    assert report["counters"]["oldest_unacked_s"] >= 0.0
    picture = base64.b64decode(report["cameras"]["image"]["jpeg"])
    assert abs(np.asarray(Image.open(io.BytesIO(picture)))[16:].mean() - 90) < 5
    assert processes.stop("sim_node") == 0
    report = says(lambda r: r["mode"] == "no_frame" and r["observation_age_ms"] > 500, "silence")
    assert report["safe_action"]["why"] == "no_frame"
    trainer.service.close()
    trainer.start()
    says(lambda r: r["mode"] == "no_frame" and r["cameras"], "the new service hears it too")
    assert processes.stop("policy_node") == 0
    watcher.until(lambda: trainer.look()["age_s"] > 2.0, "a robot that is gone grows old")
    stream = report_of(state / "status.json")["stream"]
    assert stream["live_sent"] > 0
    assert stream["live_pictures"] > 0
