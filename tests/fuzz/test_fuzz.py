"""Every decoder that reads a network or a file answers, or refuses in few words."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import run, target
from tests.fuzz.target import ROOT, Target, TooMuchWork
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_changed_input_is_answered_or_refused(name, rng):
    TARGETS[name].run(TARGETS[name].mutated(rng))


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_good_inputs_are_taken_and_changed_ones_mostly_refused(name):
    """So that the fuzzing reaches the decoder, and does not end at its first check."""
    target = TARGETS[name]
    assert all(target.run(seed) for seed in target.seeds())
    changed = [target.mutated(random.Random(f"{name}/{i}")) for i in range(12)]
    assert len({*changed}) > 6


def test_all_of_them_run_in_bounded_memory(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz.run", "--examples", "6", "--seed", "3"]
    done = subprocess.run(
        [*command, "--failures", tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"(\w+): 6 inputs, 0 failed", done.stdout) == list(TARGETS)


def test_what_fails_is_kept_and_can_be_replayed(tmp_path, monkeypatch, capsys):
    def decode(data):
        raise ZeroDivisionError if data == b"bad" else ValueError("refused")

    monkeypatch.setitem(TARGETS, "cdr", Target(decode, lambda: [b"good"], (ValueError,)))
    assert run.attempt("cdr", b"good", tmp_path)
    assert not run.attempt("cdr", b"bad", tmp_path)
    [kept] = tmp_path.iterdir()
    assert kept.read_bytes() == b"bad"
    assert str(kept) in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["run", "--replay", str(kept)])
    with pytest.raises(ZeroDivisionError):
        run.main()


def test_work_without_end_is_noticed_by_counting_calls(monkeypatch):
    monkeypatch.setattr(target, "MAX_CALLS", 1000)

    def decode(data):
        for _ in iter(int, 1):
            len(data)

    with pytest.raises(TooMuchWork, match="1000 calls"):
        Target(decode, lambda: [b""], (ValueError,)).run(b"")


@pytest.mark.parametrize("change", [(b"sha256", b"sha255"), (b"CREATE TABLE", b"CREATE\xd3TABLE")])
def test_a_ledger_whose_schema_is_scrambled_is_said_to_be_damaged(change):
    """SQLite's words for it, some of which are no text, look like those of a busy ledger."""
    [good] = TARGETS["ledger"].seeds()
    assert change[0] in good
    assert not TARGETS["ledger"].run(good.replace(*change))


@pytest.mark.slow
def test_ten_minutes_of_fuzzing_find_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz.run", "--minutes", "10", "--failures", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
