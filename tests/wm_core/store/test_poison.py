"""One value that would ruin the weights reaches no window, whoever let it through."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.step import FLAGS
from wm_core.format.chunk import ChunkMeta, decode_chunk, encode_chunk, read_columns
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.index import make_index, step_number
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.segments import valid_runs

POISON = [
    {"reward": 1e30},
    {"reward": float("nan")},
    {"action": np.array([1e30], np.float32)},
    {"action": np.array([-1.5], np.float32)},
    {"period_s": 1e9},
]


@pytest.mark.parametrize("poison", POISON)
def test_the_store_leaves_out_what_a_robot_called_valid(spec, make_step, poison):
    meta = ChunkMeta(robot="r", session="0" * 32, seq=0, spec=spec, first_step=0, steps=3)
    data = encode_chunk([make_step(0), make_step(1, **poison), make_step(2)], meta)
    index = make_index(read_columns(data))
    assert step_number(index.steps, "is_valid").tolist() == [True, False, True]
    assert valid_runs(index) == [(0, 1), (2, 3)]
    others = [name for name in FLAGS if name != "is_valid"]
    assert not any(step_number(index.steps, name)[1] for name in others)


def test_robot_and_simulator_mark_it_at_once_and_keep_it(tmp_path, spec, make_step):
    spool = Spool(tmp_path / "spool", robot="r", task="", spec=spec, settings=SpoolSettings())
    ledger = Ledger(tmp_path / "store" / LEDGER_NAME)
    recorder = EnvRecorder(tmp_path / "store", ledger, robot="sim", task="", spec=spec)
    steps = [make_step(0), *(make_step(1, **poison) for poison in POISON), make_step(2)]
    for step in steps:
        assert spool.put(step)
        recorder.add(step)
    spool.close()
    recorder.seal()
    ledger.close()
    files = sorted(tmp_path.glob("*/*/*/*.mcap"))
    assert len(files) == 2
    for path in files:
        kept = decode_chunk(path.read_bytes())[1]
        assert [step.is_valid for step in kept] == [True] + [False] * len(POISON) + [True]
    assert spool.counters()["steps_invalid"] == len(POISON)


def test_one_step_that_cannot_be_recorded_costs_itself_alone(tmp_path, spec, make_step):
    spool = Spool(tmp_path, robot="r", task="", spec=spec)
    bad = [{"stamp_ns": -1}, {"stamp_ns": 2**62}, {"policy_version": 2**60}, {"is_last": 2}]
    for number in range(8):
        spool.put(make_step(number))
        spool.put(make_step(number, **bad[number % len(bad)]))
    spool.close()
    counts = spool.counters()
    assert counts["dropped_spec_mismatch"] == 8
    assert counts["steps_sealed"] == 8
