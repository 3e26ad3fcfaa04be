"""Writes the panels of the page as HTML; what is missing is said in a sentence.

Each function gives the content of one element.  Names and texts of robots and runs are escaped.
"""

from __future__ import annotations

import time
from typing import Any

from wm_core.page.drawing import Chart, action_bars, in_short
from wm_core.page.hearing import RobotFacts, RobotsHeard
from wm_core.page.policy_reader import VersionFacts, since
from wm_core.page.returns import number
from wm_core.page.run_reader import RunView, nothing_yet
from wm_core.page.wording import ago, count, facts_table, note, size, text

ENDED = ("done", "stopped", "diverged", "failed")  #: phases of a learner that has ended
_MEAN_OF = 10  # episodes of the running mean


# ------------------------------------------------------------------------------ at the top


def title(run: RunView) -> str:
    """Name what is shown: task, system and folder."""
    task, preset = run.settings.get("task"), run.settings.get("preset")
    words = [text(w, 60) for w in (task, preset, run.settings.get("size")) if w]
    return f"{' · '.join(words) or 'a run'} <small>{text(run.root, 80)}</small>"


def links(run: RunView, heard: RobotsHeard) -> str:
    """Say which of robots, service and learner are there, a lamp for each."""
    there = [robot for robot in heard.robots if robot.is_heard]
    lost = [robot.name for robot in heard.robots if not robot.is_heard]
    if heard.problem:
        lamps = [_lamp("bad", "service lost"), _lamp("off", "robots unknown")]
    else:
        lamps = [_lamp("good", "service")]
        if lost:
            lamps.append(_lamp("bad", f"robot lost: {', '.join(lost[:3])}"))
        elif there:
            lamps.append(_lamp("good", f"{len(there)} robot{'s' * (len(there) > 1)}"))
        else:
            lamps.append(_lamp("off", "no robot"))
    return "".join([*lamps, _learner_lamp(run)])


def _learner_lamp(run: RunView) -> str:
    phase = str(run.status.get("phase", ""))
    if run.pid is not None:
        waits = bool(run.status.get("waiting_for"))
        return _lamp("warn" if waits else "good", f"learner {text(phase, 20) or 'starting'}")
    if not phase:
        return _lamp("off", "no learner")
    kind = "off" if phase in ("done", "stopped") else "bad"
    return _lamp(kind, f"learner {text(phase, 20)}" if phase in ENDED else "learner lost")


def _lamp(kind: str, words: str) -> str:
    return f'<span class="lamp {kind}">{text(words)}</span>'


# ------------------------------------------------------------------------------ robots


def robots_frame(heard: RobotsHeard) -> str:
    """Places for the robots, in which ``robot_state`` and pictures are put."""
    if heard.problem:
        return note(f"Nothing is heard of robots: {heard.problem}.", "bad")
    if not heard.robots:
        return note("No robot has been heard yet. Robots speak to the service by themselves.")
    parts = []
    for i, robot in enumerate(heard.robots):
        cameras = "".join(
            f'<figure><img id="robot-{i}-camera-{j}" alt="camera {text(name)}" width="128" '
            f'height="128"><figcaption>{text(name)}</figcaption></figure>'
            for j, name in enumerate(robot.cameras)
        )
        parts.append(
            f'<article class="robot"><h3>{text(robot.name)}</h3><div class="cameras">{cameras}'
            f'</div><div id="robot-{i}-state"></div></article>'
        )
    if heard.more:
        parts.append(note(f"{heard.more} more robots are not shown."))
    return "".join(parts)


def robot_state(robot: RobotFacts) -> str:
    """What a robot does at the moment, or that it is lost."""
    parts = []
    if not robot.is_heard:
        parts.append(note(f"Not heard for {ago(robot.age_s)}; below is what it said last.", "bad"))
    elif not robot.cameras:
        parts.append(note("It has sent no picture yet."))
    mode = f'<b class="{"good" if robot.mode == "acts" else "warn"}">{text(robot.mode or "–")}</b>'
    if robot.mode_text:
        mode += f" {text(robot.mode_text, 300)}"
    safe = "none so far"
    if robot.safe_why:
        safe = f"{text(robot.safe_why, 200)}, {ago(robot.safe_age_s)} ago"
    late = robot.period_ms and robot.tick_p99_ms and robot.tick_p99_ms > robot.period_ms
    tick = f"{in_short(robot.tick_p99_ms)} ms"
    facts = [
        ("mode", mode),
        ("policy", "none" if robot.policy is None else f"version {robot.policy}"),
        ("observation age", f"{in_short(robot.observation_age_ms)} ms"),
        ("tick p99", f'<b class="bad">{tick}</b>' if late else tick),
        ("last safe action", safe),
    ]
    if robot.action:
        names = robot.action_names
        parts.append(action_bars(robot.action, robot.action_low, robot.action_high, names))
    return "".join([*parts, facts_table(facts)])


def robot_counters(heard: RobotsHeard) -> str:
    """Everything that the robots count, folded away."""
    parts = []
    for robot in heard.robots:
        shown = [(k, in_short(v, 6)) for k, v in sorted(robot.counters.items())]
        if shown:
            parts.append(f"<h3>{text(robot.name)}</h3>{facts_table(shown)}")
    return "".join(parts) or note("No robot has sent counters.")


# ------------------------------------------------------------------------------ is it better


def better(run: RunView) -> str:
    """Returns over the steps of the robot, with the levels that are known."""
    curves = run.curves
    if not curves.episodes and not curves.evaluations:
        return note(nothing_yet(run, "no episode has ended"))
    chart = Chart("agent steps (thin lines: a new policy)", "return", height=260)
    xs = [p.agent_steps for p in curves.episodes]
    ys = [p.mean for p in curves.episodes]
    chart.dots(xs, ys, "episodes")
    if len(ys) >= _MEAN_OF:
        means = [sum(ys[i - _MEAN_OF : i]) / _MEAN_OF for i in range(_MEAN_OF, len(ys) + 1)]
        chart.line(xs[_MEAN_OF - 1 :], means, f"mean of {_MEAN_OF}")
    tried = curves.evaluations
    if tried:
        at = [p.agent_steps for p in tried]
        chart.band(at, [p.low for p in tried], [p.high for p in tried], "")
        chart.line(at, [p.mean for p in tried], "evaluated, 95 %", kind="b")
    for steps, version in curves.versions:
        chart.mark(steps, f"version {version}")
    for name in ("random", "best"):
        level = run.baselines.get(name)
        level = level.get("mean") if isinstance(level, dict) else level
        found = number(level)
        if found is not None:
            chart.level(found, name)
    return chart.svg() + _verdict(run)


def _verdict(run: RunView) -> str:
    """Say in one sentence how good it is, as far as the evaluations tell."""
    evaluation = run.status.get("evaluation")
    evaluation = evaluation if isinstance(evaluation, dict) else {}
    mean, low, high = (number(evaluation.get(k)) for k in ("mean", "low", "high"))
    ys = [p.mean for p in run.curves.episodes][-_MEAN_OF:]
    words = []
    if ys:
        words.append(
            f"The last {len(ys)} episodes returned {in_short(sum(ys) / len(ys))} on average"
        )
    if mean is not None:
        words.append(f"the last evaluation {in_short(mean)} ({in_short(low)} to {in_short(high)})")
    bounds = run.baselines.get("random")
    bounds = bounds if isinstance(bounds, dict) else {"mean": bounds}
    random = number(bounds.get("high")) or number(bounds.get("mean"))
    if random is not None:
        words.append(f"random actions at most {in_short(random)}")
    return note("; ".join(words) + ".") if words else ""


# ------------------------------------------------------------------------------ is anything lost


def lost(run: RunView, heard: RobotsHeard) -> str:
    """Steps from the robots to the learner, and what is in the way."""
    parts = (
        [note(f"The store cannot be read: {run.store_problem}", "bad")]
        if run.store_problem
        else []
    )
    stored = run.stored
    learnt = number(run.status.get("agent_steps"))
    facts = [
        ("steps stored", count(stored.get("steps"))),
        ("chunks stored", f"{count(stored.get('chunks'))}, {size(stored.get('bytes'))}"),
        ("steps known to the learner", count(learnt)),
        ("steps trained on", count(number(run.learner.get("steps_trained_on")))),
        ("refused, kept apart", _alarm(stored.get("quarantined"))),
        ("damaged since", _alarm(stored.get("damaged"))),
        ("disk left", size(run.free_bytes)),
    ]
    if not stored and not run.store_problem:
        parts.append(note("Nothing is stored yet."))
    parts.append(facts_table(facts))
    parts += [_robot_lost(robot) for robot in heard.robots]
    return "".join(parts)


def _alarm(found: int | None) -> str:
    return f'<b class="bad">{count(found)}</b>' if found else count(found)


def _robot_lost(robot: RobotFacts) -> str:
    counters = robot.counters
    names = (
        ("recorded", "steps_recorded"),
        ("spooled", "steps_spooled"),
        ("chunks sealed", "chunks_sealed"),
        ("chunks acknowledged", "chunks_acked"),
        ("chunks waiting", "chunks_waiting"),
        ("oldest unacknowledged", "oldest_unacked_s"),
        ("disk left", "disk_free_bytes"),
    )
    facts = []
    for name, key in names:
        value = counters.get(key)
        if value is not None:
            worded = ago(value) if key.endswith("_s") else count(value)
            facts.append((name, size(value) if key.endswith("_bytes") else worded))
    dropped = {k: v for k, v in counters.items() if k.startswith(("dropped_", "lost_")) and v}
    facts += [(k.replace("_", " "), f'<b class="bad">{count(v)}</b>') for k, v in dropped.items()]
    return f"<h3>{text(robot.name)}</h3>{facts_table(facts)}" if facts else ""


# ------------------------------------------------------------------------------ policies


def policies(run: RunView, heard: RobotsHeard) -> str:
    """Versions with their gates and signatures, channels, and which robot runs which."""
    found = run.policies
    if not found.versions:
        return note(nothing_yet(run, "no policy has been published"))
    running: dict[int, list[str]] = {}
    for name, said in found.robots:
        running.setdefault(int(number(said.get("version")) or 0), []).append(name)
    for robot in heard.robots:
        if robot.policy is not None and robot.name not in dict(found.robots):
            running.setdefault(robot.policy, []).append(robot.name)
    body = "".join(_version_row(policy, running) for policy in found.versions)
    parts = [
        '<table class="list"><thead><tr><th>version</th><th>updates</th><th>gates</th>'
        f"<th>signed by</th><th>robots</th></tr></thead><tbody>{body}</tbody></table>"
    ]
    parts += [f"<p>channel <b>{text(c.name)}</b>: {_course(c)}</p>" for c in found.channels]
    quiet = [
        f"{name} {ago(since(said))} ago" for name, said in found.robots if (since(said) or 0) > 120
    ]
    if quiet:
        parts.append(note(f"Asked last for a policy: {', '.join(quiet[:6])}."))
    return "".join(parts)


def _version_row(policy: VersionFacts, running: dict[int, list[str]]) -> str:
    if policy.problem:
        problem = f'<td colspan="4" class="bad">{text(policy.problem, 300)}</td>'
        return f"<tr><td>{policy.version}</td>{problem}</tr>"
    gates = ", ".join(
        f"{text(k.replace('_', ' '))} {in_short(v, 4)}" for k, v in policy.gates.items()
    )
    robots = ", ".join(text(name) for name in running.get(policy.version, [])[:6])
    signer = f"<code>{text(policy.signer)}</code>" if policy.signer else "not signed"
    return (
        f'<tr title="{text(policy.created)} {text(policy.sha256[:16])}"><td>{policy.version}</td>'
        f"<td>{count(policy.updates)}</td><td>{gates or '–'}</td><td>{signer}</td>"
        f"<td>{robots or '–'}</td></tr>"
    )


def _course(channel: Any) -> str:
    if channel.course is None:
        return f'<span class="bad">{text(channel.problem, 300)}</span>'
    plan = channel.course.plan
    words = ["no version" if plan.current is None else f"version {plan.current.version}"]
    if channel.course.follow:
        words.append("follows the newest")
    if plan.rollout is not None:
        words.append(f"{plan.rollout.release.version} for {plan.rollout.share:.0%}")
    words += [f"{text(name)} held at {r.version}" for name, r in sorted(plan.pins.items())[:6]]
    return ", ".join(words)


# ------------------------------------------------------------------------------ the learner


def learner(run: RunView) -> str:
    """How fast it learns, and what it waits for."""
    status = run.status
    if not status:
        return note(nothing_yet(run, "the learner has said nothing"))
    parts = []
    if status.get("waiting_for"):
        parts.append(note(f"It waits: {status['waiting_for']}", "warn"))
    if run.pid is None and status.get("phase") not in ENDED:
        parts.append(note("Its process has ended without a word.", "bad"))
    said_s = number(status.get("time"))
    live = run.learner
    goal = number(status.get("updates_goal"))
    of = f" of {count(goal)}" if goal is not None else ""
    memory, logged = number(live.get("memory_bytes")), run.curves.last.get("replay_ratio")
    facts = [
        ("state", text(status.get("phase", "–"))),
        ("updates", f"{count(number(status.get('updates')))}{of}"),
        ("updates a second", in_short(number(status.get("updates_per_s")))),
        ("steps a second", in_short(number(status.get("agent_steps_per_s")))),
        ("replay ratio", in_short(number(live.get("replay_ratio")) or logged)),
        ("memory", size(memory) if memory is not None else "–"),
        ("said", "–" if said_s is None else f"{ago(time.time() - said_s)} ago"),
    ]
    return "".join([*parts, facts_table(facts)])


def losses(run: RunView) -> str:
    """The numbers of the last line of the log."""
    metrics = run.status.get("metrics")
    shown = {k: number(v) for k, v in metrics.items()} if isinstance(metrics, dict) else {}
    if not shown:
        return note("The learner has logged no losses yet.")
    return facts_table([(name, in_short(value, 4)) for name, value in sorted(shown.items())[:100]])
