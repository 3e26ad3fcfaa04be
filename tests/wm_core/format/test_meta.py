"""Every number, name and count of a meta has a bound, and what is printed of it is harmless."""

from __future__ import annotations

import json

import pytest

from wm_core.contract.errors import MAX_REASON, ChunkRefused, ChunkVersionRefused, shown
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.format.chunk import MAX_FIRST_STEP, MAX_STEPS, ChunkKey, ChunkMeta, encode_chunk
from wm_core.format.meta import MAX_DROPPED, MAX_META_BYTES, MAX_SEQ

SPEC = Spec(
    images={"image": ImageSpec(height=8, width=12)},
    vectors={"proprio": VectorSpec(size=2, names=("hip", "knee"))},
    action=ActionSpec(low=(-1.0,), high=(1.0,), names=("turn",), units=("rad/s",)),
)
META = ChunkMeta(robot="r2", session="0" * 32, seq=3, spec=SPEC, first_step=7, steps=5)
ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def parse(**changed):
    return ChunkMeta.parse(json.dumps(json.loads(META.model_dump_json()) | changed))


def spec_with(path, value):
    spec = json.loads(SPEC.model_dump_json())
    *parents, last = path
    inner = spec
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return {"spec": spec}


def test_the_meta_of_these_tests_is_good():
    assert parse() == META


@pytest.mark.parametrize(
    "changed",
    [
        {"first_step": MAX_FIRST_STEP + 1},
        {"first_step": 2**32},
        {"first_step": 2**63 - 1},
        {"first_step": 2**63},
        {"first_step": 10**400},
        {"first_step": -1},
        {"seq": MAX_SEQ + 1},
        {"seq": 10**400},
        {"seq": -1},
        {"steps": MAX_STEPS + 1},
        {"dropped": {"queue_full": MAX_DROPPED + 1}},
        {"dropped": {"queue_full": -1}},
        {"dropped": {"x" * 65: 1}},
        {"dropped": {ESCAPE: 1}},
        {"dropped": {f"reason_{i}": 1 for i in range(65)}},
        spec_with(("vectors", "proprio", "size"), 10**6),
        spec_with(("vectors", "proprio", "names"), ["hip", "x" * 129]),
        spec_with(("vectors", "proprio", "names"), ["hip", ESCAPE]),
        spec_with(("vectors", "proprio", "names"), ["x"] * 70_000),
        spec_with(("action", "units"), [ESCAPE]),
        spec_with(("action", "names"), ["\x9b31m"]),
        spec_with(("action", "low"), [-1e300]),
        spec_with(("action", "low"), [-1.0] * 70_000),
        spec_with(("images", "image", "height"), 10**5),
        spec_with(("images", "x" * 65), {}),
        spec_with(("images", "line\nbreak"), {}),
        spec_with(("vectors",), {f"v{i}": {"size": 1} for i in range(65)}),
        spec_with(("vectors",), {f"v{i}": {"size": 1} for i in range(64)}),
        spec_with(("period_s",), 1e300),
        spec_with(("period_s",), float("inf")),
        spec_with(("period_s",), float("nan")),
    ],
)
def test_what_is_beyond_its_bound_is_refused(changed):
    with pytest.raises(ChunkRefused) as error:
        parse(**changed)
    assert len(str(error.value)) <= MAX_REASON
    assert str(error.value).isprintable()


def test_the_bounds_themselves_are_taken():
    last = {"first_step": MAX_FIRST_STEP, "seq": MAX_SEQ, "dropped": {"queue_full": MAX_DROPPED}}
    assert parse(**last).first_step + MAX_STEPS == 2**31 - 1


def test_a_task_that_would_command_the_terminal_is_made_printable():
    assert parse(task=f"pick{ESCAPE}").task == "pick?]0;owned??[2J"
    assert parse(task="pick\nplace").task == "pick place"
    assert parse(task="välj µ °").task == "välj µ °"
    assert len(parse(task="x" * 10_000).task) == 256


def test_a_meta_of_too_many_or_too_deep_words_is_refused():
    for text in ("[" * 10_000, '{"a":' * 10_000, "x" * (MAX_META_BYTES + 1), "[]", "1", "\x00"):
        with pytest.raises(ChunkRefused):
            ChunkMeta.parse(text)
    deep = json.loads(META.model_dump_json())
    text = json.dumps(deep | {"task": "DEEP"}).replace('"DEEP"', "[" * 5000 + "]" * 5000)
    with pytest.raises(ChunkRefused):
        ChunkMeta.parse(text)


def test_another_version_is_named_in_short():
    with pytest.raises(ChunkVersionRefused) as error:
        parse(version="x" * 100_000)
    assert len(str(error.value)) < 100


def test_a_key_of_thousands_of_digits_is_refused_in_few_words():
    for seq in (10**5000, -(10**5000), MAX_SEQ + 1):
        with pytest.raises(ChunkRefused, match="expected 0 to 99999999"):
            ChunkKey("r2", "0" * 32, seq).check()


def test_a_session_beyond_its_last_step_is_not_encoded():
    meta = META.model_copy(update={"first_step": MAX_FIRST_STEP + 1, "steps": 0})
    with pytest.raises(ChunkRefused, match="begin a new one"):
        encode_chunk([], meta)


def test_a_reason_is_one_short_line_whatever_it_repeats():
    reason = str(ChunkRefused(f"topic {ESCAPE}\n\u202e" + "x" * 10**6))
    assert len(reason) == MAX_REASON
    assert reason.isprintable()
    assert reason.endswith(" ...")
    assert shown("plain, µ and ° stay") == "plain, µ and ° stay"
