"""The page over HTTP: what it shows, to whom, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.link.trainer.tokens import add_token
from wm_core.page.hearing import Hearing

PANELS = ("title", "links", "robots", "better", "understands", "lost", "policies", "learner")
EVIL = "<img src=x onerror=alert(1)>"


def robot(**said):
    return {"age_s": 0.1, "report": {"t_ns": 1_000_000_000, "mode": "acts", **said}}


def test_a_folder_without_a_run_is_shown_in_sentences(page, get):
    answer = get.get(page().url)
    assert answer.status_code == 200
    assert "is not there yet" in answer.text
    assert "no learner" in answer.text
    for panel in PANELS:
        assert re.search(f'id="{panel}"[^>]*>.', answer.text), panel


def test_the_stream_brings_everything_once_and_then_what_changes(page, service, listen, tmp_path):
    (tmp_path / "run").mkdir()
    service.robots = {"kitchen": robot(policy=1)}
    server = page(trainer=service.url)
    shown = listen(server.url, lambda shown: "robot-0-state" in shown)
    assert set(PANELS) <= shown.keys()
    assert "version 1" in shown["robot-0-state"]

    def changed(shown):
        service.robots = {"kitchen": robot(policy=2)}
        return "version 2" in shown.get("robot-0-state", "")

    listen(server.url, changed)


def test_what_robots_and_runs_say_is_escaped(page, service, get, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "settings.json").write_text(json.dumps({"task": EVIL, "preset": EVIL}))
    status = {"phase": EVIL, "waiting_for": EVIL, "updates": 1, "metrics": {EVIL: 1.0}}
    (run / "status.json").write_text(json.dumps(status))
    (run / "metrics.jsonl").write_text(json.dumps({"agent_steps": 1, EVIL: 2.0}) + "\n")
    service.robots = {
        EVIL: robot(
            mode=EVIL,
            mode_text=EVIL,
            action=[0.5],
            action_names=[EVIL],
            safe_action={"why": EVIL, "t_ns": 1},
            counters={EVIL: 1.0, f"dropped_{EVIL}": 2.0},
            cameras={EVIL: {"jpeg": "AAAA"}, "b": {"jpeg": '"><script>'}},
        )
    }
    text = get.get(page(trainer=service.url).url).text
    assert "&lt;img src=x" in text
    assert "<img src=x" not in text
    assert "<script>" not in text


@pytest.mark.parametrize(
    "rubbish",
    [
        None,
        [],
        {"a": None},
        {"a": robot(action="x", action_low=[None], cameras=[], counters=[1], safe_action=3)},
        {"a": robot(action=[1e400, "NaN", None, True], policy="x", observation_age_ms=[])},
        {"a": {"age_s": "soon", "report": 5}},
        {str(n): robot() for n in range(500)},
    ],
)
def test_rubbish_from_a_service_leaves_a_page(page, service, get, rubbish):
    service.robots = rubbish
    answer = get.get(page(trainer=service.url).url)
    assert answer.status_code == 200
    assert 'id="robots"' in answer.text


def test_rubbish_in_a_run_folder_leaves_a_page(page, get, tmp_path):
    run = tmp_path / "run"
    (run / "live").mkdir(parents=True)
    (run / "policies" / "main" / "00000003").mkdir(parents=True)
    (run / "store").mkdir()
    for name in ("settings.json", "status.json", "metrics.jsonl", "baselines.json"):
        (run / name).write_bytes(b'{"metrics": 5, "time": "x", "phase": [], \xff')
    (run / "live" / "dream.json").write_text('{"error": 3, "reward": ["x"], "note": 7}')
    (run / "live" / "dream_truth.png").write_bytes(b"no picture")
    (run / "store" / "ledger.sqlite").write_bytes(b"no ledger" * 100)
    answer = get.get(page().url)
    assert answer.status_code == 200
    assert "policy.manifest.json" in answer.text


def test_nothing_comes_from_elsewhere(page, get):
    server = page()
    base = server.url.removesuffix("/ui/")
    answer = get.get(server.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?! src=\"/ui/page.js\")", answer.text)
    assert not re.search(r"\son\w+=|\sstyle=|https?://", answer.text)
    for name in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
        assert get.get(base + name).status_code == 200, name
    assert get.get(f"{base}/ui/..%2fserver.py").status_code == 404


def test_another_name_for_this_machine_is_refused(page, get):
    server = page()
    assert get.get(server.url, headers={"Host": "evil.example"}).status_code == 403
    answer = get.get(f"{server.url}events", headers={"Host": "evil.example:80"})
    assert answer.status_code == 401


def test_with_tokens_only_who_shows_one_may_look(page, get, tmp_path):
    tokens = tmp_path / "tokens"
    token = add_token(tokens, "anna", may_look=True)
    server = page(tokens=tokens)
    base = server.url
    refused = get.get(base)
    assert refused.status_code == 401
    assert "password" in refused.text
    assert "Is it better" not in refused.text
    assert get.get(f"{base}events").status_code == 401
    assert get.get(base, headers={"Authorization": f"Bearer {token}x"}).status_code == 401
    assert get.get(base, headers={"Authorization": f"Bearer {token}"}).status_code == 200

    assert get.post(f"{base}login", data={"token": "wrong"}).status_code == 401
    elsewhere = {"Origin": "http://evil.example"}
    assert get.post(f"{base}login", data={"token": token}, headers=elsewhere).status_code == 401
    answer = get.post(f"{base}login", data={"token": token})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert get.get(base).status_code == 200  # the client keeps the cookie
    tokens.write_text("")  # taken away
    assert get.get(base).status_code == 401


def test_a_robots_token_sees_nothing_of_the_page(page, get, tmp_path):
    robot = add_token(tmp_path / "tokens", "rover")
    base = page(tokens=tmp_path / "tokens").url
    bearer = {"Authorization": f"Bearer {robot}"}
    for path in ("", "episodes", "episodes/other/x/0", "events", "dream/x"):
        answer = get.get(f"{base}{path}", headers=bearer)
        assert answer.status_code == 403, path
        assert "wm robot add NAME --may-look" in answer.text
        assert "Is it better" not in answer.text
    answer = get.post(f"{base}login", data={"token": robot})
    assert answer.status_code == 403
    assert "password" in answer.text  # a person may show another one
    assert "set-cookie" not in answer.headers


def test_guessing_tokens_is_slowed_down(page, get, tmp_path):
    tokens = tmp_path / "tokens"
    add_token(tokens, "anna")
    base = page(tokens=tokens).url
    texts = [get.post(f"{base}login", data={"token": f"guess {n}"}).text for n in range(60)]
    assert "too many wrong tokens" in texts[-1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, "--tokens FILE and --tls-cert FILE"),
        ({"tls_key": "key.pem"}, "--tls-cert"),
        ({"tokens": "nowhere"}, "tokens file nowhere"),
        ({"token_file": "nowhere"}, "--token-file nowhere"),
        ({"tls_cert": "nowhere.pem"}, "--tls-cert nowhere.pem"),
        ({"trainer": "trainer:8765"}, "expected an address such as http://"),
    ],
)
def test_wrong_settings_are_said_at_the_start(page, settings, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        page(**settings)


def test_a_dream_s_strips_come_by_addresses_that_change_with_them(page, listen, get, tmp_path):
    live = tmp_path / "run" / "live"
    live.mkdir(parents=True)
    png = b"\x89PNG\r\n\x1a\n"
    dream = {"observed": 2, "steps": 4, "frames": 2, "error": [3, 4], "reward": [0, 0, 1, 2]}
    (live / "dream.json").write_text(json.dumps(dream))
    for name in ("truth", "imagined", "error"):
        (live / f"dream_{name}.png").write_bytes(png + name.encode())
    base = page().url
    shown = listen(base, lambda shown: "dream-truth" in shown)
    assert "what it imagined" in shown["understands"]
    origin = base.removesuffix("/ui/")
    assert get.get(origin + shown["dream-truth"]).content == png + b"truth"
    assert get.get(f"{base}dream/other").status_code == 404
    (live / "dream_truth.png").write_bytes(png + b"another")
    before = shown["dream-truth"]
    shown = listen(base, lambda shown: shown.get("dream-truth", before) != before)
    assert get.get(origin + shown["dream-truth"]).content == png + b"another"
    assert (live / "watched").exists()


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "wants a token that may look"), (403, "refuses: no reason was given")],
)
def test_a_service_that_refuses_the_page_is_told_as_such(service, tmp_path, status, words):
    service.status = status
    assert words in Hearing(tmp_path, service.url).look().problem
