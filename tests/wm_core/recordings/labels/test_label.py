"""Labels change the rewards of a store and nothing else, and say where they cannot be made."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from wm_core.cli.main import main
from wm_core.format.chunk import chunk_path, decode_chunk
from wm_core.store.ledger import LEDGER_NAME, Ledger

FUNCTION = '''
import math


def moved(obs, action, info):
    """The number of the step before, which every part of the step before has to confirm."""
    number = info["previous"]["place"][1]
    assert math.isclose(action[0], number / 1000, rel_tol=1e-6)
    assert obs["place"][1] == number + 1
    assert info["task"] == "wander" and info["robot"] == "rover"
    seen = info["memory"].setdefault("steps", [])
    seen.append(info["step"])
    assert seen == list(range(1, len(seen) + 1))
    return number


def plain(obs, action, info):
    return float(obs["place"][1])


def hides(obs, action, info):
    return None if info["step"] == 3 else 2


def fails(obs, action, info):
    return {}["nothing"]


def endless(obs, action, info):
    return math.inf


def text(obs, action, info):
    return "good"


def late(obs, action, info):
    if info["step"] == 18:
        raise SystemExit("too far")
    return 1.0
'''


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(FUNCTION)
    return path


def label(root, to, *words):
    return main(["data", "label", "--root", str(root), "--to", str(to), "--with", *words])


def chunks(root):
    """(meta, steps) of every chunk, in order."""
    ledger = Ledger(root / LEDGER_NAME, read_only=True)
    rows = ledger.since(0)
    ledger.close()
    return [decode_chunk(chunk_path(root, row.key).read_bytes()) for row in rows]


def alike(one, other):
    """Whether two steps are the same but for reward and validity."""
    same = replace(one, reward=0.0, is_valid=True, obs={}, action=0, requested_action=None)
    arrays = [("place", one.obs, other.obs), ("image", one.obs, other.obs)]
    return (
        same == replace(other, reward=0.0, is_valid=True, obs={}, action=0, requested_action=None)
        and all((a[name] == b[name]).all() for name, a, b in arrays)
        and (one.action == other.action).all()
        and (one.requested_action is None) == (other.requested_action is None)
    )


def test_rewards_of_a_formula_change_nothing_else(dots, tmp_path, capsys):
    root, to = dots(lacking={3}), tmp_path / "labelled"
    assert label(root, to, "column", 'place["y"] - 10 * is_intervention') == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "104 steps of 5 episodes labelled" in said
    assert "wm train --store" in said
    for (before, steps), (after, labelled) in zip(chunks(root), chunks(to), strict=True):
        assert after.session != before.session
        assert after.model_copy(update={"session": before.session}) == before
        for old, new in zip(steps, labelled, strict=True):
            assert alike(old, new)
            number = old.obs["place"][1]
            expected = 0.0 if old.is_first else number - 10 * (number == 5)
            assert new.reward == expected
            assert new.is_valid == (number != 33)  # 25 was invalid for its reward alone
    about = json.loads((to / "labels.json").read_text())
    assert (about["with"], about["steps"]) == ("column", 104)


def test_labelling_again_stores_nothing_again_and_a_grown_store_its_new_steps(
    dots, tmp_path, capsys
):
    to = tmp_path / "labelled"
    root = dots(4)
    assert label(root, to, "column", "is_terminal") == 0
    assert "5 new chunks, 0 known" in " ".join(capsys.readouterr().out.split())
    assert label(root, to, "column", "is_terminal") == 0
    assert "0 new chunks, 5 known" in " ".join(capsys.readouterr().out.split())
    grown = dots(8, name="grown")
    assert label(grown, to, "column", "is_terminal") == 0
    assert "5 new chunks, 5 known" in " ".join(capsys.readouterr().out.split())
    assert len({meta.session for meta, _ in chunks(to)}) == 1
    assert label(grown, to, "column", "1") == 2
    assert "holds other labels (column is_terminal)" in capsys.readouterr().err
    assert label(grown, grown, "column", "1") == 2
    assert "expected another folder" in capsys.readouterr().err
    assert label(grown, dots(1, name="other"), "column", "1") == 2
    assert "holds another store" in capsys.readouterr().err


def evict(root, seqs):
    """Leave out the chunks ``seqs``, as a bound of the store's size does."""
    ledger = Ledger(root / LEDGER_NAME)
    ledger.mark_pruned(max(row.arrival for row in ledger.since(0) if row.seq in seqs))
    for row in ledger.since(0):
        if row.seq in seqs:
            chunk_path(root, row.key).unlink()
    ledger.close()


def test_labelling_goes_on_where_the_source_has_evicted_what_was_labelled(
    dots, functions, tmp_path, capsys
):
    to = tmp_path / "labelled"
    assert label(dots(4), to, "python", f"{functions}:plain") == 0  # chunks 0 to 4
    before = {meta.seq: [s.reward for s in steps] for meta, steps in chunks(to)}
    grown = dots(8, name="grown")
    evict(grown, {0, 1, 2})  # 3 begins at step 48, amid an episode
    capsys.readouterr()
    assert label(grown, to, "python", f"{functions}:plain") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "5 new chunks, 2 known" in said
    assert "without a reward" not in said
    assert "amid an episode" not in said
    after = {meta.seq: [s.reward for s in steps] for meta, steps in chunks(to)}
    assert sorted(after) == list(range(10))
    assert {seq: after[seq] for seq in before} == before
    assert not any(math.isnan(reward) for rewards in after.values() for reward in rewards)


def test_a_session_whose_begin_was_evicted_before_it_was_labelled_says_so(
    dots, functions, tmp_path, capsys
):
    root, to = dots(4), tmp_path / "labelled"
    evict(root, {0})
    assert label(root, to, "python", f"{functions}:plain") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "begin amid an episode, as the steps before were evicted: 1" in said
    assert "1 steps without a reward" in said
    assert label(root, to, "python", f"{functions}:plain") == 0
    assert "0 new chunks, 4 known" in " ".join(capsys.readouterr().out.split())


def test_a_function_sees_the_step_the_action_that_led_to_it_and_what_was_before(
    dots, functions, tmp_path
):
    root, to = dots(lacking={3}), tmp_path / "labelled"
    # chunk 3 lacks the steps 48 to 63: what follows it is an episode of its own
    assert label(root, to, "python", f"{functions}:moved") == 0
    for _, steps in chunks(to):
        for step in steps:
            if step.obs["place"][1] == 64:
                assert math.isnan(step.reward)
                continue
            assert step.reward == (0.0 if step.is_first else step.obs["place"][1] - 1)


def test_a_step_behind_a_gap_and_one_without_an_answer_are_kept_and_not_learnt_from(
    dots, functions, tmp_path, opened, capsys
):
    root, to = dots(lacking={3}), tmp_path / "labelled"
    assert label(root, to, "python", f"{functions}:hides") == 0
    steps = {int(s.obs["place"][1]): s for _, steps in chunks(to) for s in steps}
    unknown = {n for n, s in steps.items() if math.isnan(s.reward)}
    # the third of each episode, and the first behind the gap; of what is behind it, the third
    assert unknown == {3, 23, 43, 64, 67, 83, 103}
    assert not any(steps[n].is_valid for n in unknown)
    assert "7 steps without a reward" in " ".join(capsys.readouterr().out.split())
    learnt = {int(s) for g in opened(to).segments for s in g.rows(0, g.length)}
    assert len(learnt) == 104 - 7 - 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("column", "1", "--seed", "3"), "--seed belongs to --with marks"),
        (("column", "plaec[0]"), "did you mean 'place'"),
        (("column", "place[7]"), "'place' has 2 numbers, got the index 7"),
        (("column", "1 +"), "expected a formula"),
        (("colunm", "1"), "did you mean 'column'"),
        (("python", "rewards.py"), "expected FILE:FUNCTION"),
        (("python", "{folder}/rewardz.py:moved"), "did you mean 'rewards.py'"),
        (("python", "{folder}/rewards.py:movd"), "did you mean 'moved'"),
        (
            ("python", "{folder}/rewards.py:fails"),
            "at step 1 of session 00000000 it raised KeyErr",
        ),
        (("python", "{folder}/rewards.py:endless"), "expected a finite number, got inf"),
        (("python", "{folder}/rewards.py:text"), "expected a number or None, got 'good'"),
        (("marks", "{folder}/markz.csv"), "unknown file 'markz.csv'"),
    ],
)
def test_labels_that_cannot_be_made_are_refused_in_one_line(
    words, reason, dots, functions, tmp_path, capsys
):
    words = [word.format(folder=functions.parent) for word in words]
    assert label(dots(1), tmp_path / "labelled", *words) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert reason in error
    assert "Traceback" not in error


@pytest.mark.parametrize("made", [False, True])
def test_labels_that_fail_midway_leave_nothing_and_the_same_folder_can_be_used(
    made, dots, functions, tmp_path, capsys
):
    store, to = dots(1), tmp_path / "labelled"
    if made:
        to.mkdir()
    assert label(store, to, "python", f"{functions}:late") == 2
    assert (
        "at step 18 of session 00000000 it raised SystemExit: too far" in capsys.readouterr().err
    )
    assert to.exists() is made
    assert not made or list(to.iterdir()) == []
    assert label(store, to, "column", "step") == 0


def test_labels_go_into_no_folder_that_holds_something_else(dots, tmp_path, capsys):
    store, to = dots(1), tmp_path / "mine"
    to.mkdir()
    (to / "notes.txt").write_text("keep")
    assert label(store, to, "column", "step") == 2
    assert "holds something else: expected a new folder" in capsys.readouterr().err
    assert [path.name for path in to.iterdir()] == ["notes.txt"]
    assert label(store, to / "notes.txt", "column", "step") == 2
    assert "is a file: expected a new folder" in capsys.readouterr().err


def test_a_store_that_was_labelled_outlives_labels_that_fail_later(dots, functions, tmp_path):
    to = tmp_path / "labelled"
    assert label(dots(1, name="first"), to, "column", "step if step < 20 else 1 / 0") == 0
    before = sorted(to.rglob("*"))
    assert label(dots(2, name="second"), to, "column", "step + nothing") == 2
    assert sorted(to.rglob("*")) == before


# ------------------------------------------------------------------ marked frames


@pytest.fixture
def marks(dots, tmp_path):
    """A store of eight episodes, and a function that marks steps of it by where the dot is."""
    root = dots(8)
    steps = [step for _, steps in chunks(root) for step in steps]

    def write(numbers, name="marks.csv"):
        lines = ["episode,step,label"]
        for number in numbers:
            right = steps[number].obs["place"][0] > 0
            lines.append(f"00000000.{number // 20},{number % 20},{'yes' if right else 'no'}")
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return root, write


def test_a_classifier_learns_from_marked_frames_and_says_how_well(marks, tmp_path, capsys):
    root, write = marks
    to = tmp_path / "labelled"
    assert label(root, to, "marks", str(write(range(0, 120, 2)))) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "marked frames and told" in said
    assert "of other episodes" in said
    assert json.loads((to / "labels.json").read_text())["report"] in said
    steps = [step for _, steps in chunks(to) for step in steps][120:]  # of no marked episode
    steps = [step for step in steps if not step.is_first]
    told = np.array([step.reward for step in steps])
    truth = np.array([step.obs["place"][0] > 0 for step in steps])
    assert ((told > 0.5) == truth).mean() > 0.8
    assert (told >= 0).all()
    assert (told <= 1).all()
    again = tmp_path / "again"
    assert label(root, again, "marks", str(write(range(0, 120, 2))), "--threshold", "0.5") == 0
    decided = [s for _, steps in chunks(again) for s in steps][120:]
    assert {s.reward for s in decided} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "expected the columns episode, step and label, got a, b"),
        ("episode,step,label\n00000000.0,1,maybe\n", "line 2: expected the label yes or no"),
        ("episode,step,label\n00000000.0,x,yes\n", "expected a step as 12, or a range"),
        ("episode,step,label\n00000000.0,9-2,yes\n", "expected a range that grows"),
        ("episode,step,label\n00000000.0,,yes\n", "line 2 lacks step"),
        ("episode,step,label\n00000000.0,1-4,yes\n", "at least 2 frames with label no, got 0"),
        (
            "episode,step,label\n00000000.0,1-4,yes\n00000000.0,4-5,no\n",
            "marks step 4 of 00000000.0 as the opposite of before",
        ),
        (
            "episode,step,label\n00000000.0,1-4,yes\n00000000.0,18-20,no\n",
            "episode 00000000.0 has the steps 0 to 19, got a mark at 20",
        ),
        (
            "episode,step,label\n00000000.0,1-4,yes\n00000000.9,1-2,no\n",
            "did you mean '00000000.0'",
        ),
    ],
)
def test_marks_that_mean_nothing_are_refused_with_their_place(
    text, reason, dots, tmp_path, capsys
):
    path = tmp_path / "marks.csv"
    path.write_text(text)
    assert label(dots(1), tmp_path / "labelled", "marks", str(path)) == 2
    assert reason in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "labelled").exists()


def test_marks_may_be_yaml(dots, tmp_path):
    from wm_core.recordings.labels.marks import read_marks

    path = tmp_path / "marks.yaml"
    path.write_text(
        "- {episode: '00000000.0', step: 1-3, label: yes}\n"
        "- {episode: '00000000.0', step: 4, label: false}\n"
        "- {episode: '00000000.0', step: 5, label: 'no'}\n"
    )
    marks, digest = read_marks(path)
    assert [(mark.step, mark.success) for mark in marks] == [
        (1, True), (2, True), (3, True), (4, False), (5, False),
    ]  # fmt: skip
    assert len(digest) == 64
