"""``wm train --profile`` leaves a trace of an update that a browser shows."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys

import pytest

from wm_core.cli.main import main
from wm_core.training.profile import NAME, PARTS


@pytest.fixture
def lines_of(toy, tiny, tmp_path, capfd):
    """Trains so many updates with ``--profile``; returns the run folder and what was said."""

    def train(updates: int):
        run, words = (
            tmp_path / "run",
            ["--profile", "--no-publish", "--train.updates", f"{updates}"],
        )
        loud = [word for word in tiny if word != "--quiet"]
        assert main(["train", "--task", toy, "--run", str(run), *loud, *words]) == 0
        said = capfd.readouterr()
        return run, f"{said.out}{said.err}".splitlines()

    return train


def test_trace_of_one_update_names_its_parts(lines_of):
    run, lines = lines_of(8)
    events = json.loads(gzip.decompress((run / NAME).read_bytes()))["traceEvents"]
    names = [event.get("name") for event in events]
    assert all(names.count(label) == 1 for label in PARTS)
    assert "aten::convolution_backward" in names
    assert sum(NAME in line for line in lines) == 1
    assert all(any(part in line for line in lines) for part in PARTS.values())
    # the traced update counts as any other, and the setting is one start's alone
    assert json.loads((run / "status.json").read_text())["updates"] == 8
    assert "profile" not in json.loads((run / "settings.json").read_text())


def test_a_training_that_ends_before_the_trace_says_so(lines_of):
    run, lines = lines_of(2)
    assert not (run / NAME).exists()
    assert [line for line in lines if "no trace" in line and "got 2" in line]


FAULTS = """
import resource, sys, torch
from wm_core.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.set_num_threads(1)
def use():
    [torch.ones(3_000_000) for _ in range(6)]
for _ in range(8):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told to keep memory")
def test_freed_memory_is_used_again_without_page_faults():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    # glibc's own first threshold, which it would raise after some frees, or not, by chance
    environment["MALLOC_MMAP_THRESHOLD_"] = str(128 * 1024)
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how],
                check=True, capture_output=True, text=True, timeout=300, env=environment,
            ).stdout
        )
        for how in ("keep", "default")
    }  # fmt: skip
    # sixty arrays of 12 MB: 2,900 pages each, or 6 where the system hands out large pages
    assert faults["keep"] < 100
    assert faults["default"] > 2 * faults["keep"]
