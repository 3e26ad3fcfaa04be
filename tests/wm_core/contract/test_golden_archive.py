"""A golden rollout comes from outside: whatever stands in it, it is refused with a sentence."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import zipfile

import pytest

from wm_core.contract.errors import PolicyRefused
from wm_core.contract.golden import check_golden
from wm_core.contract.golden_archive import open_golden, read_golden
from wm_core.contract.runner import PolicyRunner

FRAME = "frame/image.npy"


def members(golden):
    """Every member of an archive by name, as bytes."""
    with zipfile.ZipFile(io.BytesIO(golden)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(content, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(shape, descr="|u1", data=b"", fortran=False):
    """An array's file that says what it likes."""
    text = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    header = text.ljust(245) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


@pytest.fixture
def check(model_of, golden_of):
    """A function that proves a policy by a golden whose members were changed."""
    runner = PolicyRunner.from_bytes(model_of())

    def run(changes, method=zipfile.ZIP_DEFLATED):
        golden = packed({**members(golden_of()), **changes}, method)
        check_golden(golden, runner.card, runner.call)

    run({})
    return run


@pytest.mark.parametrize(
    ("member", "data"),
    [
        (FRAME, b""),
        (FRAME, b"no array"),
        (FRAME, npy("(1, 2, 3)")),
        (FRAME, npy("(9, 13, 1)", "|O", b"x" * 936)),
        (FRAME, npy("(9, 13, 1)", "<U4", b"x" * 2000)),
        (FRAME, npy("(9, 13, 1)", "|V4", b"x" * 500)),
        (FRAME, npy("(9, 13, 1)", "<c16", b"x" * 2000)),
        (FRAME, npy("(9, 13, 1)", "<M8[ns]", b"x" * 1000)),
        (FRAME, npy("(9, 13, 1)", "|u1", b"x" * 200, fortran=True)),
        (FRAME, npy("()", "|u1", b"x")),
        (FRAME, npy("(0, 0, 1)", "|u1")),
        (FRAME, npy("(" + "1, " * 70 + ")", "|u1", b"x")),
        (FRAME, npy("(9, -13, 1)", "|u1", b"x" * 200)),
        (FRAME, npy("(9, True, 1)", "|u1", b"x" * 200)),
        (FRAME, npy("'text'", "|u1", b"x" * 200)),
        (FRAME, npy("(1e9,)", "|u1", b"x" * 200)),
        (FRAME, npy("(99999999999999999999999, 0)", "|u1", b"x" * 200)),
        (FRAME, b"\x93NUMPY\x03\x00" + bytes(300)),
        (FRAME, b"\x93NUMPY\x09\x00" + bytes(300)),
        ("seen/image.npy", npy("(4, 4)", "|u1", b"x" * 16)),
        ("in/is_first.npy", npy("()", "|b1", b"x")),
        ("in/is_first.npy", npy("(12,)", "|b1", b"x" * 3)),
        ("in/proprio.npy", npy("(12, 2)", "<f8", b"x" * 192)),
        ("in/proprio.npy", npy("(12, 2)", ">f4", b"x" * 96)),
        ("out/value.npy", npy("(12, 1, 1)", "<f4", b"x" * 48)),
        ("gap/next_count.npy", npy("(12, 5000)", "<f4", bytes(240_000))),
        ("gap/next_count.npy", npy("(3, 1)", "<f4", bytes(12))),
        ("gap/next_count.npy", npy("(12, 0)", "<f4")),
        ("scale/value.npy", npy("()", "<f4", bytes(4))),
        ("scale/value.npy", npy("(12, 3)", "<f4", bytes(144))),
        ("spec.npy", npy("(3,)", "|u1", b"[[[")),
        ("spec.npy", npy("(90000,)", "|u1", b"[" * 90_000)),
        ("spec.npy", npy("(2, 2)", "<f4", bytes(16))),
        ("spec.npy", npy("()", "<f8", bytes(8))),
    ],
)
def test_odd_arrays_are_refused_and_nothing_else_is_raised(check, member, data):
    with pytest.raises(PolicyRefused, match=r"golden|preprocessing of 'image' differs"):
        check({member: data})


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(check, method):
    with pytest.raises(PolicyRefused, match="stored or deflated"):
        check({}, method)


def test_an_archive_that_is_encrypted_cut_or_doubled_is_refused(golden_of):
    golden = golden_of()
    for at in range(0, len(golden), 211):
        with pytest.raises(PolicyRefused, match="golden rollout is not readable"):
            open_golden(golden[:at])
    with zipfile.ZipFile(io.BytesIO(golden)) as archive:
        first = archive.infolist()[0].header_offset
    locked = bytearray(golden)
    locked[first + 6] |= 1
    central = golden.index(b"PK\x01\x02")
    locked[central + 8] |= 1
    with pytest.raises(PolicyRefused, match="not encrypted"):
        open_golden(bytes(locked))
    buffer = io.BytesIO(golden)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("in/is_first.npy", b"")
    with pytest.raises(PolicyRefused, match="each once"):
        open_golden(buffer.getvalue())
    with pytest.raises(PolicyRefused, match="at most 500 arrays"):
        open_golden(packed({f"{n}.npy": b"" for n in range(600)}))


def test_a_flipped_byte_ends_in_a_refusal_or_in_another_answer(golden_of, model_of):
    golden, runner = golden_of(), PolicyRunner.from_bytes(model_of())
    for at in range(0, len(golden), 29):
        spoilt = bytearray(golden)
        spoilt[at] ^= 0x55
        try:
            check_golden(bytes(spoilt), runner.card, runner.call)
        except PolicyRefused:
            continue
        # what no reader of an archive looks at: times, versions, attributes
        assert {*read_golden(bytes(spoilt))} == {*read_golden(golden)}


def test_a_rollout_of_gigabytes_costs_the_memory_of_a_step(
    tmp_path, golden_of, model_of, write, monkeypatch
):
    """Zeros: a thousandth of their size on the wire."""
    steps, big = 12, 8 << 20
    content = members(golden_of())
    content["more.npy"] = npy(f"({steps}, {big})", "|u1", bytes(steps * big))
    golden = packed(content)
    del content
    assert len(golden) < 200_000
    model = model_of(golden_sha256=hashlib.sha256(golden).hexdigest())
    folder = write(tmp_path / "policy", golden=golden, model=model)
    PolicyRunner.load(folder)
    tracemalloc.start()
    try:
        PolicyRunner.load(folder)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 << 20  # and not the 96 MB that it unpacks to
    monkeypatch.setattr("wm_core.contract.golden_archive.MAX_UNPACKED_BYTES", 50 << 20)
    with pytest.raises(PolicyRefused, match="unpacked it has"):
        PolicyRunner.load(folder)


def test_a_frame_of_gigabytes_is_not_read(check, monkeypatch):
    monkeypatch.setattr("wm_core.contract.golden_archive.MAX_ARRAY_BYTES", 1000)
    with pytest.raises(PolicyRefused, match="at most 1000 bytes are read at once, got 4000"):
        check({FRAME: npy("(40, 100, 1)", "|u1", bytes(4000))})


def test_a_rollout_without_end_is_given_up(check, monkeypatch):
    monkeypatch.setattr("wm_core.contract.golden.MAX_STEPS", 11)
    with pytest.raises(PolicyRefused, match="too long: expected 1 to 11 steps, got 12"):
        check({})
