"""Robots that wait for a policy share one look, are woken together, and leave nothing behind."""

from __future__ import annotations

import socket
import urllib.request

from wm_core.link.trainer.channels import Channels
from wm_core.link.trainer.policy_repository import PolicyRepository


def ask(service, wait=60):
    """A socket on which a robot has asked and waits."""
    host, port = service.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    path = f"/v1/policies/main?after=-1&wait={wait}"
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return sock


def waiting(service):
    return sum(watch.waiting for watch in [*service.application.policy_routes._watches.values()])


def test_peers_that_ask_and_close_leave_nothing_behind(serve, wait_until):
    service = serve()
    peers = [ask(service) for _ in range(40)]
    wait_until(lambda: waiting(service) == 40)
    for peer in peers:
        peer.close()
    wait_until(lambda: waiting(service) == 0)
    assert service.application.policy_routes._watches == {}


def test_all_that_wait_share_the_looks_and_are_woken_together(serve, wait_until):
    service = serve()
    looks, course = [], Channels.course

    def counted(self, channel):
        looks.append(channel)
        return course(self, channel)

    peers = [ask(service) for _ in range(40)]
    wait_until(lambda: waiting(service) == 40)
    Channels.course = counted
    try:
        wait_until(lambda: len(looks) >= 3)
    finally:
        Channels.course = course
    assert len(looks) < 40  # one look for all, not one for each
    PolicyRepository(service.application.policies).publish(b"0", b"golden", version=0)
    for peer in peers:
        peer.settimeout(60)
        assert peer.recv(12) == b"HTTP/1.1 200"
        peer.close()


def test_a_change_between_two_questions_is_not_missed(serve):
    service = serve()
    repository = PolicyRepository(service.application.policies)
    for version in range(5):
        repository.publish(b"%d" % version, b"golden", version=version)
        url = f"{service.url}/v1/policies/main?after={version - 1}&wait=30"
        with urllib.request.urlopen(url, timeout=60) as reply:
            assert b'"version":%d' % version in reply.read()
