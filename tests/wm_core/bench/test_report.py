"""What every benchmark writes, and where."""

import json

import pytest

from wm_core.bench.report import Report, is_quiet, run_line
from wm_core.cli.bench import SUBJECTS, main
from wm_core.contract.errors import SettingsError


def test_json_goes_line_by_line_to_standard_output_and_progress_does_not(capsys):
    with Report("a trial", as_json=True) as report:
        report.progress("half way")
        report.add("trial/speed", 2, "x")
    out, err = capsys.readouterr()
    run, row = map(json.loads, out.splitlines())
    assert run["name"] == "run"
    assert {"commit", "versions", "threads", "load_average", "quiet"} <= set(run)
    assert row == {"name": "trial/speed", "value": 2.0, "unit": "x"}
    assert err == "a trial: half way\n"


def report_and_interrupt():
    with Report("a trial", as_json=False) as report:
        report.add("trial/speed", 41.5, "x")
        report.add("trial/rate", 12345.6, "obs/s")
        raise KeyboardInterrupt


def test_a_table_has_every_row_after_an_interrupt_too(capsys):
    with pytest.raises(KeyboardInterrupt):
        report_and_interrupt()
    out = capsys.readouterr().out
    assert "trial/speed" in out
    assert "41.5" in out
    assert "12,346" in out


def test_the_run_line_knows_its_versions_and_can_be_written():
    line = run_line()
    assert {"python", "numpy"} <= set(line["versions"])
    assert json.loads(json.dumps(line)) == line


def test_a_busy_neighbour_makes_the_machine_not_quiet():
    import subprocess
    import sys

    spin = "import time\nend = time.time() + 3600\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as neighbour:
        try:
            assert not is_quiet(1.0)
        finally:
            neighbour.kill()


def test_an_unknown_subject_is_refused_with_the_nearest(capsys):
    with pytest.raises(SettingsError, match="did you mean 'learner'"):
        main(["lerner"])
    assert main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(f"  {subject}" in usage for subject in SUBJECTS)
