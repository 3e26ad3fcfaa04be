"""The demo's report counts by rules that a reader can check."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.demo import page, report
from wm_core.demo.loop import Demo
from wm_core.demo.settings import DemoSettings
from wm_core.library.returns_so_far import returns_so_far
from wm_core.link.audit import SessionAudit
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.training.returns import Evaluation

SPEC = Spec(
    images={"image": ImageSpec(height=8, width=8)}, action=ActionSpec(low=(-1,), high=(1,))
)


def swap(version: int, updates: int, weights: str | None = None) -> dict[str, object]:
    return {
        "version": version,
        "learner_updates": updates,
        "weights_sha256": weights or f"w{version}",
        "time_s": 100.0 + version,
    }


def test_a_swap_counts_for_new_weights_and_fifty_updates() -> None:
    swaps = [
        swap(0, 0),  # the first policy replaces none
        swap(1, 49),  # too few updates
        swap(2, 50),
        swap(3, 150, weights="w2"),  # the same weights again
        swap(4, 99),  # 49 since version 2
        swap(5, 100),
    ]
    assert [s["version"] for s in report.counted_swaps(swaps)] == [2, 5]


def record(root: Path, episodes: list[list[float]]) -> None:
    ledger = Ledger(root / LEDGER_NAME)
    recorder = EnvRecorder(root, ledger, robot="r", task="t", spec=SPEC, seal_steps=3)
    for rewards in episodes:
        for i, reward in enumerate(rewards):
            recorder.add(
                Step(
                    obs=SPEC.zeros(),
                    action=np.zeros(1, np.float32),
                    reward=reward,
                    is_first=i == 0,
                    is_last=i == len(rewards) - 1,
                    is_terminal=False,
                    policy_version=4,
                )
            )
    recorder.seal()
    ledger.close()


def test_episodes_are_summed_across_files(tmp_path: Path) -> None:
    record(tmp_path, [[0.0, 1.0, 2.0, 3.0], [0.0, 5.0], [0.0, 9.0]])  # the last: cut by the stop
    found = report.episodes(tmp_path)
    assert [e.total for e in found] == [6.0, 5.0]
    assert found[0].version == 4
    assert found[0].minute == pytest.approx(3 * SPEC.period_s / 60)


def test_an_episode_with_a_hole_is_not_summed(tmp_path: Path) -> None:
    record(tmp_path, [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 5.0], [0.0]])
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as ledger, ledger:
        ledger.execute("DELETE FROM chunks WHERE seq = 1")
    assert [e.total for e in report.episodes(tmp_path)] == [5.0]


def account(**changed: object) -> SessionAudit:
    known: dict[str, object] = dict.fromkeys(("acked", "pruned", "pending", "lost"), ())
    known |= {"robot": "r", "session": "s", "sent": 1, "steps_stored": 7, "steps_pruned": 0}
    known |= {"dropped": {}, "refused": {}, "damaged": {}, "steps_dropped": {}, "ended": True}
    return SessionAudit(**known | changed)  # type: ignore[arg-type]


def test_a_step_that_is_not_stored_has_one_reason() -> None:
    """The recorder saw the spool refuse three; the spool says why, and lost four more itself."""
    session = account(steps_dropped={"queue_full": 3, "spool_full": 4})
    reasons = report.steps_not_stored({"no_reward": 2, "spool_full": 3}, [session])
    assert reasons == {"no_reward": 2, "queue_full": 3, "spool_full": 4}


def test_the_demo_moves_and_deletes_its_own_folders_only(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="the demo needs rclpy")
    demo = Demo(DemoSettings(run=tmp_path / "demo"))
    demo._make_way()
    (tmp_path / "demo" / "report.json").touch()
    demo._make_way()
    assert (tmp_path / "demo.previous" / "report.json").exists()
    (tmp_path / "thesis").mkdir()
    with pytest.raises(SettingsError, match="thesis: expected the folder of a demo"):
        Demo(DemoSettings(run=tmp_path / "thesis"))._make_way()


def figures(**changed: float) -> dict[str, object]:
    known = {"final_return": 50.0, "final_return_low": 40.0, "random_return": 0.0}
    return known | {"random_return_high": 5.0, "best_return": 100.0} | changed


def test_the_verdict_claims_learning_only_above_the_bound() -> None:
    assert page.verdict(figures()).startswith("It learnt")
    assert "50%" in page.verdict(figures())
    assert page.verdict(figures(final_return_low=4.0)).startswith("Not shown")


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    shown = figures() | {"task": "seek", "minutes": 3.0, "commit": "abc", "tick_p99_ms": 2.0}
    data = page.ReportData(
        episodes=[page.Episode(i / 10, float(i), 1) for i in range(20)],
        swaps=[(0.5, 1)],
        latency_ms=[(1.0, 10), (2.0, 3)],
        next_commands=["wm info <x>"],
    )
    page.write(tmp_path / "report.html", shown, data)
    text = (tmp_path / "report.html").read_text()
    assert text.count("<svg") == 2
    assert 'src="http' not in text
    assert "href=" not in text.replace("xlink:href", "")
    assert "&lt;x&gt;" in text


def test_baselines_are_left_for_who_watches(tmp_path: Path) -> None:
    report.write_baselines(tmp_path, "seek", Evaluation((1.0, 3.0), (5, 5)), 9.0)
    told = returns_so_far([], tmp_path)["baselines"]
    assert (told["random"]["mean"], told["random"]["episodes"], told["best"]) == (2.0, 2, 9.0)
    report.write_baselines(tmp_path, "seek", Evaluation((1.0,), (5,)), 9.0)
    assert returns_so_far([], tmp_path)["baselines"]["random"]["low"] is None
