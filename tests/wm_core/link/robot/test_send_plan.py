"""No chunk holds up the others, in whatever state it is."""

from __future__ import annotations

from pathlib import Path

from wm_core.format.chunk import ChunkKey
from wm_core.link.robot.journal import Waiting
from wm_core.link.robot.send_plan import SendPlan


def chunk(number, *, session=0, robot="rover"):
    key = ChunkKey(robot, f"{session:032x}", number)
    return Waiting(session, key, Path(f"{robot}/{session}/{number}"), 10, float(session))


def plan_of(*chunks, order="oldest"):
    plan = SendPlan(order, first_s=1.0, most_s=100.0)
    plan.update(list(chunks), [])
    return plan


def drain(plan, now_s=0.0, works=lambda chunk: True, most=1000):
    """Take and send up to ``most`` chunks; numbers (session, seq) of those that were sent."""
    sent = []
    for _ in range(most):
        taken = plan.take(now_s)
        if taken is None:
            break
        if works(taken):
            plan.done(taken)
            sent.append((taken.created_ns, taken.key.seq))
        else:
            plan.failed(taken, now_s)
    return sent


def test_the_oldest_goes_first_or_the_newest():
    chunks = [chunk(n, session=s) for s in (2, 1) for n in (1, 0)]
    assert drain(plan_of(*chunks)) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert drain(plan_of(*chunks, order="newest")) == [(2, 1), (2, 0), (1, 1), (1, 0)]


def test_a_chunk_is_given_to_one_thread_only_and_again_where_it_was_put_back():
    plan = plan_of(chunk(0), chunk(1))
    first, second = plan.take(0.0), plan.take(0.0)
    assert (first.key.seq, second.key.seq) == (0, 1)
    assert plan.take(0.0) is None
    plan.put_back(first)
    assert plan.take(0.0) is first


def test_a_failed_chunk_waits_longer_each_time_up_to_its_bound():
    plan = plan_of(chunk(0))
    waits, now_s = [], 0.0
    for _ in range(40):
        plan.failed(plan.take(now_s), now_s)
        assert plan.take(now_s) is None
        waits.append(plan.wait_s(now_s))
        now_s += waits[-1]
    for wait_s, full_s in zip(waits, [1, 4, 16, 64, *[100] * 36], strict=True):
        assert full_s / 2 <= wait_s <= full_s
    assert plan.counters()["stuck_chunks"] == 1


def test_a_thousand_chunks_that_fail_let_the_newest_pass():
    old = [chunk(n, session=1) for n in range(1000)]
    new = [chunk(n, session=2) for n in range(64)]
    plan = plan_of(*old, *new)
    failures = []

    def works(taken):
        if taken.created_ns == 1:
            failures.append(taken)
        return taken.created_ns == 2

    sent = drain(plan, works=works, most=80)
    assert sorted(sent) == [(2, n) for n in range(64)]
    assert len(failures) <= 16  # each may have cost a deadline
    assert len(drain(plan)) == 1000 - len(failures)  # they were not given up
    assert len(drain(plan, now_s=2.0)) == len(failures)


def test_a_robot_that_is_denied_holds_up_no_other():
    plan = plan_of(chunk(0, session=1, robot="arm"), chunk(0, session=2, robot="rover"))
    plan.hold("arm", 30.0)
    assert drain(plan) == [(2, 0)]
    assert plan.wait_s(10.0) == 20.0
    assert drain(plan, now_s=30.0) == [(1, 0)]


def test_what_leaves_the_spool_by_others_is_not_sent():
    chunks = [chunk(n) for n in range(3)]
    plan = plan_of(*chunks)
    flying = plan.take(0.0)
    plan.update([], [chunks[1], flying])
    plan.failed(flying, 0.0)
    assert drain(plan, now_s=1000.0) == [(0, 2)]
    assert plan.counters() == {"pending_chunks": 0, "pending_bytes": 0, "stuck_chunks": 0}
    assert plan.oldest_s() is None


def test_a_chunk_that_arrived_and_cannot_leave_is_not_sent_again():
    plan = plan_of(chunk(0))
    plan.done(plan.take(0.0), stays=True)
    plan.update([chunk(0)], [])
    assert plan.take(0.0) is None
    plan.update([], [chunk(0)])  # somebody removed it: another one may come by that name
    plan.update([chunk(0)], [])
    assert drain(plan) == [(0, 0)]
