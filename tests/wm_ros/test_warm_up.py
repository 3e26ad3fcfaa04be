"""Dry runs come just before a frame, never in its way, and only while the policy acts."""

from __future__ import annotations

import numpy as np
import pytest

from wm_ros.timing.pacer import Pace, Pacer, SimulatedPacer, TimerPacer
from wm_ros.timing.warm_up import AGAIN_TICKS, FEWEST, MARGIN_NS, WORTH_NS, WarmUp

MS = 1_000_000
PERIOD = 50 * MS
COST = 2 * MS


def play(pacer, warm_up, arrivals, *, cost_ns=COST):
    """Begin and end of each dry run of a node that wakes exactly when it asks to."""
    runs, now, frames = [], 0, list(arrivals)
    while frames:
        wake = pacer.next_call_ns()
        wake = wake if warm_up.at_ns is None else min(wake, warm_up.at_ns)
        now = max(now, min(wake, frames[0]))
        if frames[0] <= now:
            warm_up.drop()
            pacer.on_frame(now, frames.pop(0))
        if warm_up.due(now):
            runs.append((now, now + cost_ns))
            warm_up.ran(cost_ns)
        due = pacer.poll(now)
        if due is not None and due.fresh:
            warm_up.plan(pacer.earliest_ns(), now, period_ns=PERIOD, work_ns=COST)
        elif due is not None:
            warm_up.drop()
    return runs


def test_each_dry_run_is_over_before_the_next_frame_comes_and_only_just():
    arrivals = [k * PERIOD for k in range(1, 100)]
    runs = play(Pacer(Pace(PERIOD), 0), WarmUp("on"), arrivals)
    assert len(runs) > 90
    for _, end in runs:
        frame = min(a for a in arrivals if a >= end)
        assert frame - end == MARGIN_NS


def test_a_jittery_camera_is_warmed_up_for_before_its_earliest_frames():
    rng = np.random.default_rng(0)
    arrivals = [k * PERIOD + int(rng.uniform(0, 8) * MS) for k in range(1, 300)]
    runs = play(Pacer(Pace(PERIOD), 0), WarmUp("on"), arrivals)
    assert len(runs) > 200
    hit = [a for a in arrivals for begin, end in runs if begin < a < end]
    assert len(hit) < len(arrivals) / 20


def test_a_silent_camera_is_warmed_up_for_once_and_no_more():
    arrivals = [k * PERIOD for k in range(1, 20)] + [90 * PERIOD]
    runs = play(Pacer(Pace(PERIOD), 0), WarmUp("on"), arrivals)
    assert [begin for begin, _ in runs if begin > arrivals[-2]] == [
        arrivals[-2] + PERIOD - COST - MARGIN_NS
    ]


def test_off_plans_nothing_and_a_drop_takes_back_what_is_planned():
    warm_up = WarmUp("off")
    warm_up.plan(PERIOD, 0, period_ns=PERIOD, work_ns=COST)
    assert warm_up.at_ns is None
    warm_up.mode = "on"
    warm_up.plan(PERIOD, 0, period_ns=PERIOD, work_ns=COST)
    assert warm_up.at_ns == PERIOD - COST - MARGIN_NS
    warm_up.drop()
    assert not warm_up.due(PERIOD)


@pytest.mark.parametrize(
    ("earliest_ns", "now_ns", "work_ns"),
    [
        (None, 0, COST),  # nobody knows when a frame comes
        (PERIOD, PERIOD - COST, COST),  # there is no time left
        (PERIOD, 0, PERIOD // 3),  # it would take too much of the period
        (PERIOD, 0, 0),  # nobody knows how long it takes
    ],
)
def test_no_dry_run_is_planned_where_there_is_no_slack(earliest_ns, now_ns, work_ns):
    warm_up = WarmUp("on")
    warm_up.plan(earliest_ns, now_ns, period_ns=PERIOD, work_ns=work_ns)
    assert warm_up.at_ns is None


def test_a_dry_run_that_would_begin_late_is_left_out():
    warm_up = WarmUp("on")
    warm_up.plan(PERIOD, 0, period_ns=PERIOD, work_ns=COST)
    begin = warm_up.at_ns
    assert not warm_up.due(begin - 1)
    assert not warm_up.due(begin + MARGIN_NS)
    assert warm_up.at_ns is None


@pytest.mark.parametrize(("took_ns", "goes_on"), [(WORTH_NS // 2, False), (WORTH_NS * 2, True)])
def test_a_step_that_is_short_anyway_is_left_alone_and_measured_again_later(took_ns, goes_on):
    warm_up = WarmUp("auto")
    for _ in range(FEWEST):
        warm_up.plan(PERIOD, 0, period_ns=PERIOD, work_ns=COST)
        assert warm_up.due(warm_up.at_ns)
        warm_up.ran(took_ns)
    planned = []
    for _ in range(AGAIN_TICKS + 1):
        warm_up.plan(PERIOD, 0, period_ns=PERIOD, work_ns=COST)
        planned.append(warm_up.at_ns is not None)
    assert planned[0] == goes_on
    assert planned[-1]
    assert sum(planned) == (AGAIN_TICKS + 1 if goes_on else 1)


def test_another_policy_is_measured_anew():
    warm_up = WarmUp("auto")
    for _ in range(FEWEST):
        warm_up.ran(WORTH_NS // 2)
    warm_up.plan(PERIOD, 0, period_ns=PERIOD, work_ns=COST)
    assert warm_up.at_ns is None
    warm_up.forget()
    warm_up.plan(PERIOD, 0, period_ns=PERIOD, work_ns=COST)
    assert warm_up.at_ns is not None


def test_a_pacer_foresees_a_frame_only_where_it_can():
    pacer = Pacer(Pace(PERIOD), 0)
    assert pacer.earliest_ns() is None  # no frame yet
    for k in range(1, 6):
        pacer.on_frame(k * PERIOD, k * PERIOD)
        assert pacer.earliest_ns() is None  # it has come
        pacer.poll(pacer.next_call_ns())
    assert pacer.earliest_ns() == 6 * PERIOD
    timer = TimerPacer(Pace(PERIOD), 0, simulated=False)
    timer.poll(0)
    assert timer.earliest_ns() == PERIOD
    assert TimerPacer(Pace(PERIOD), 0, simulated=True).earliest_ns() is None
    assert SimulatedPacer(Pace(PERIOD), 0).earliest_ns() is None


@pytest.mark.ros
def test_the_node_makes_dry_runs_while_it_acts_until_it_is_told_not_to(
    processes, watcher, played, policy_at, report_of, tmp_path
):
    from geometry_msgs.msg import TwistStamped
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    policy_at(tmp_path / "policy", bias=0.5)
    state, commands = tmp_path / "state", watcher.listen(TwistStamped, "cmd_vel")
    params = {
        "policy_dir": str(tmp_path / "policy"),
        "state_dir": str(state),
        "record": False,
        "warm_up": "on",
    }
    processes.start("policy_node", params)

    def dry_runs() -> int:
        return report_of(state / "status.json").get("dry_runs", 0)

    def fresh_count() -> int:
        """That of a report written from now on."""
        begin_s = report_of(state / "status.json")["time_s"]
        watcher.until(
            lambda: report_of(state / "status.json")["time_s"] > begin_s + 1.5, "two reports"
        )
        return dry_runs()

    watcher.until(lambda: dry_runs() >= 10, "dry runs")
    moving = [m for m in commands if m.twist.linear.x]
    assert {m.twist.linear.x for m in moving} == {0.625}  # they change no answer
    played.picture, before = None, played.picture
    quiet = fresh_count()
    played.settle(commands, 20)
    assert fresh_count() == quiet
    played.picture = before
    watcher.until(lambda: dry_runs() > quiet, "dry runs once the camera is back")
    value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="off")
    request = SetParameters.Request(parameters=[Parameter(name="warm_up", value=value)])
    (result,) = watcher.call(SetParameters, "policy/set_parameters", request).results
    assert result.successful
    told = fresh_count()
    played.settle(commands, 20)
    assert fresh_count() == told
    assert processes.stop("policy_node") == 0
