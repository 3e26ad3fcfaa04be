"""The page within the trainer's service, as a real process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from wm_core.contract.files import read_json
from wm_core.library.replayed import Replays
from wm_core.link.trainer.service import ServeSettings, Service
from wm_core.link.trainer.tokens import add_token
from wm_core.page.mounted import mount

ROOT = Path(__file__).parents[3]


@pytest.fixture
def serve(tmp_path, closing):
    """Starts `wm serve --ui` and gives its address and process."""

    def start(*options):
        command = [sys.executable, "-m", "wm_core.cli", "serve", "--root", str(tmp_path / "run")]
        command += ["--port", "0", "--ui", *options]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        closing(process.wait, 60)
        closing(process.kill)
        end_s = time.monotonic() + 120
        while not (found := read_json(tmp_path / "run" / "service.json")):
            assert process.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.05)
        return found["url"], process

    return start


def report(**said):
    return {"t_ns": time.time_ns(), "mode": "acts", "policy": 3, **said}


def test_a_robot_that_speaks_is_shown_and_is_told_that_it_is_watched(serve, get, listen):
    url, process = serve()
    assert get.post(f"{url}/v1/live/kitchen", json=report()).json()["watched"] is False
    said = {"action": [0.25], "action_names": ["forward"], "counters": {"steps_recorded": 41}}

    def arrived(shown):
        get.post(f"{url}/v1/live/kitchen", json=report(**said))
        return "forward" in shown.get("robot-0-state", "") and "41" in shown.get("lost", "")

    shown = listen(f"{url}/ui/", arrived)
    assert "kitchen" in shown["robots"]
    assert "version 3" in shown["robot-0-state"]
    assert get.post(f"{url}/v1/live/kitchen", json=report()).json()["watched"] is True
    with httpx.stream("GET", f"{url}/ui/events", timeout=60) as answer:
        next(answer.iter_lines())
        process.terminate()  # an open page does not hold the service back
        assert process.wait(60) == 0


def test_those_tokens_of_the_service_that_may_look_let_people_look(serve, get, tmp_path):
    robot = add_token(tmp_path / "tokens", "kitchen")
    token = add_token(tmp_path / "tokens", "anna", may_look=True)
    url, _ = serve("--tokens", str(tmp_path / "tokens"))
    assert get.get(f"{url}/ui/").status_code == 401
    bearer = {"Authorization": f"Bearer {robot}"}
    assert get.get(f"{url}/ui/", headers=bearer).status_code == 403
    bearer = {"Authorization": f"Bearer {token}"}
    assert get.get(f"{url}/ui/", headers=bearer).status_code == 200
    assert get.post(f"{url}/ui/login", data={"token": token}).status_code == 303
    assert get.get(f"{url}/ui/").status_code == 200
    assert get.get(f"{url}/v1/status").status_code == 401  # the cookie is of the page alone


def test_many_who_ask_for_episodes_hold_up_nobody_else(tmp_path, closing, monkeypatch):
    """More of them than the threads that all routes of the service share, which are 40."""
    go_on, refused = threading.Event(), threading.Semaphore(0)
    listed = Replays.newest

    def newest(self, most):
        assert go_on.wait(300)
        return listed(self, most)

    monkeypatch.setattr(Replays, "newest", newest)
    service = Service(ServeSettings(root=tmp_path / "run", port=0, min_free_bytes=0))
    mount(service)
    closing(service.close)
    service.start()

    def look():
        answer = httpx.get(f"{service.url}/ui/episodes", timeout=300)
        if answer.status_code == 503:
            refused.release()
        return answer

    with ThreadPoolExecutor(60) as viewers:
        answers = [viewers.submit(look) for _ in range(60)]
        try:
            for _ in range(60 - 2 - 16):
                assert refused.acquire(timeout=120)
            ready = httpx.get(f"{service.url}/healthz", timeout=120)
            assert ready.json() == {"ready": True, "reasons": []}
            assert httpx.get(f"{service.url}/metrics", timeout=120).status_code == 200
        finally:
            go_on.set()
        found = [answer.result() for answer in answers]
    assert Counter(answer.status_code for answer in found) == {200: 18, 503: 42}
    assert all(int(a.headers["retry-after"]) > 0 for a in found if a.status_code == 503)
    assert httpx.get(f"{service.url}/ui/episodes", timeout=120).status_code == 200


def test_allow_rollback_needs_the_page(tmp_path):
    command = [sys.executable, "-m", "wm_core.cli", "serve", "--root", str(tmp_path)]
    done = subprocess.run(
        [*command, "--allow-rollback"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "needs --ui" in done.stderr
    assert json.dumps(done.stderr).count("\\n") == 1


def test_wm_ui_ends_well_while_a_page_is_open(tmp_path, closing):
    command = [sys.executable, "-m", "wm_core.cli", "ui", "--root", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    closing(process.communicate)
    closing(process.kill)
    url = process.stdout.readline().split()[1]
    with httpx.stream("GET", f"{url}events", timeout=60) as answer:
        next(answer.iter_lines())
        process.terminate()
        assert process.wait(60) == 0
