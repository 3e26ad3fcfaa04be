"""A small campaign of faults: real robots, service, reader and proxy, everything accounted for."""

import pytest

from benchmarks.chaos.campaign import Chaos, run

pytestmark = pytest.mark.long

#: each once, without disks of their own, which need root
KINDS = (
    *("kill_service", "stop_service", "kill_robot", "end_robot", "kill_reader"),
    *("jump_clock", "leave_torn_files", "send_again", "duplicate_under_other_number"),
    *("hostile_uploads", "revoke_token", "cut_every_connection", "misbehave"),
)


def test_whatever_dies_nothing_is_lost_doubled_or_uncounted(tmp_path):
    report = run(
        Chaos(
            root=tmp_path / "chaos",
            images=None,
            faults=len(KINDS),
            chunks=15 * len(KINDS),
            robots=2,
            share=0.05,
            kinds=KINDS,
        )
    )
    account = report.account
    assert account.faults == []
    assert report.injected == dict.fromkeys(KINDS, 1)
    assert (account.lost, account.twice, account.corrupt, account.uncounted) == (0, 0, 0, 0)
    assert account.acknowledged >= 15 * len(KINDS)
    assert account.steps_stored == report.reader_steps > 0
    assert account.steps_pending == 0
