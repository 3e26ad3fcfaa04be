"""What robots say of themselves, over the loopback to a real service."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from wm_core.contract.live import MAX_REPORT_BYTES
from wm_core.link.robot.client import TrainerClient
from wm_core.link.trainer.tokens import add_token


def jpeg(width=64, height=64):
    target = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(target, "JPEG")
    return base64.b64encode(target.getvalue()).decode()


def report(**more):
    return {"t_ns": 10**18, "mode": "acts", "policy": 3, "counters": {"chunks_acked": 7}, **more}


@pytest.fixture
def client(closing):
    """Opens one connection to a service."""
    return lambda service, token=None: closing(TrainerClient(service.url, token=token))


def say(client, robot, said):
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    reply = client.request("POST", f"/v1/live/{robot}", body=body)
    return reply.status, json.loads(reply.body)


def look(client, query=""):
    reply = client.request("GET", f"/v1/live{query}")
    assert reply.status == 200
    return json.loads(reply.body)["robots"]


def test_what_a_robot_said_last_is_told_with_its_age_and_only_looking_makes_it_watched(
    serve, client
):
    peer = client(serve())
    assert say(peer, "rover", report()) == (200, {"watched": False, "every_s": 1.0})
    assert say(peer, "rover", report(policy=4)) == (200, {"watched": False, "every_s": 1.0})
    cameras = {"front": {"t_ns": 5, "jpeg": jpeg()}}
    told = look(peer)
    assert told["rover"]["report"]["policy"] == 4
    assert told["rover"]["report"]["counters"] == {"chunks_acked": 7}
    assert told["rover"]["age_s"] >= 0.0
    assert say(peer, "rover", report(cameras=cameras)) == (200, {"watched": True, "every_s": 1.0})
    assert look(peer)["rover"]["report"]["cameras"] == cameras
    assert look(peer, "?robot=other") == {}


RUBBISH = {
    "JSON": b"",
    "recursion": b"[" * 100_000,
    "counters.x": b'{"t_ns": 1, "counters": {"x": NaN}}',
    "counters.y": b'{"t_ns": 1, "counters": {"y": 1e999}}',
    "out of range": b'{"t_ns": 1' + b"0" * 5000 + b"}",
    "t_ns": {"mode": "acts"},
    "mode": report(mode="x" * 65),
    "action": report(action=[0.0] * 129),
    "one length": report(action=[0.0], action_low=[0.0, 0.0]),
    "counters": report(counters={str(i): i for i in range(129)}),
    "base64": report(cameras={"a": {"t_ns": 1, "jpeg": "####"}}),
    "JPEG": report(cameras={"a": {"t_ns": 1, "jpeg": base64.b64encode(b"<html>").decode()}}),
    "at most 512": report(cameras={"a": {"t_ns": 1, "jpeg": jpeg(513, 8)}}),
    "cameras": report(cameras={str(i): {"t_ns": 1, "jpeg": jpeg(8, 8)} for i in range(17)}),
}


def test_rubbish_is_refused_by_what_is_wrong_and_what_was_heard_before_stays(serve, client):
    peer = client(serve())
    say(peer, "rover", report())
    for words, said in RUBBISH.items():
        status, answered = say(peer, "rover", said)
        assert (status, answered["verdict"]) == (400, "damaged"), words
        assert words in answered["reason"]
        assert len(answered["reason"]) < 1000
    assert look(peer)["rover"]["report"]["policy"] == 3


def test_a_report_that_is_too_large_is_refused_before_it_is_read(serve, client):
    peer = client(serve())
    status, answered = say(peer, "rover", b" " * (MAX_REPORT_BYTES + 1))
    assert (status, answered["verdict"]) == (413, "too_large")
    assert say(peer, "rover", report()) == (200, {"watched": False, "every_s": 1.0})


def test_a_robot_speaks_under_its_own_name_only_and_sees_itself_alone(serve, client, tmp_path):
    path = tmp_path / "tokens"
    tokens = {name: add_token(path, name) for name in ("rover", "arm", "operator")}
    tokens["page"] = add_token(path, "page", may_look=True)
    service = serve(tokens=path)
    assert say(client(service), "rover", report())[0] == 401
    assert say(client(service, tokens["page"]), "rover", report())[0] == 403
    for robot in ("rover", "arm"):
        assert say(client(service, tokens[robot]), robot, report())[0] == 200
    assert client(service).request("GET", "/v1/live").status == 401
    for robot in ("rover", "arm"):
        peer = client(service, tokens[robot])
        assert list(look(peer)) == list(look(peer, f"?robot={robot}")) == [robot]
    for query in ("?robot=arm", "?robot=rover&robot=arm"):
        refused = client(service, tokens["rover"]).request("GET", f"/v1/live{query}")
        assert refused.status == 403
        assert "`wm robot add NAME --may-look" in json.loads(refused.body)["reason"]
    for person in ("page", "operator"):
        peer = client(service, tokens[person])
        assert list(look(peer)) == ["arm", "rover"]
        assert list(look(peer, "?robot=arm")) == ["arm"]


def test_a_robot_that_said_nothing_yet_is_told_of_nobody(serve, client, tmp_path):
    tokens = {name: add_token(tmp_path / "tokens", name) for name in ("rover", "arm")}
    service = serve(tokens=tmp_path / "tokens")
    assert say(client(service, tokens["rover"]), "rover", report())[0] == 200
    assert look(client(service, tokens["arm"])) == {}


def test_a_name_that_no_robot_can_have_is_refused(serve, client):
    peer = client(serve())
    for name in ("Rover", "a" * 65, "r%C3%B6ver", "a%2Fb", "a/b"):
        assert peer.request("POST", f"/v1/live/{name}", body=b"{}").status in (400, 404)
    assert peer.request("GET", f"/v1/live?robot=a&robot={'b' * 65}").status == 400
    assert look(peer) == {}
