"""Writes the panels of the page as HTML; what is missing is said in a sentence.

Each function gives the content of one element.  Names and texts of robots and runs are escaped.
"""

from __future__ import annotations

import time
from typing import Any

from wm_core.page.drawing import Chart, action_bars, in_short
from wm_core.page.hearing import RobotFacts, RobotsHeard
from wm_core.page.policy_reader import VersionFacts, since
from wm_core.page.returns import Point, number
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
    tick = _ms(robot.tick_p99_ms)
    facts = [
        ("mode", mode),
        ("policy", "none" if robot.policy is None else f"version {robot.policy}"),
        ("observation age", _ms(robot.observation_age_ms)),
        ("tick p99", f'<b class="bad">{tick}</b>' if late else tick),
        ("last safe action", safe),
    ]
    if robot.action:
        names = robot.action_names
        parts.append(action_bars(robot.action, robot.action_low, robot.action_high, names))
    return "".join([*parts, facts_table(facts)])


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{in_short(value)} ms"


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
    """Returns over the steps of the robot, with their bounds and the levels that are known."""
    curves, returns = run.curves, run.experience.returns
    chart = Chart("agent steps (thin lines: a new policy)", "return", height=260)
    if returns.get("episodes"):
        chart.dots(
            [p[0] for p in returns["points"]], [p[1] for p in returns["points"]], "episodes"
        )
        bins = [b for b in returns["bins"] if b["low"] is not None]
        xs = [b["agent_steps"] for b in bins]
        chart.band(xs, [b["low"] for b in bins], [b["high"] for b in bins])
        many = max((b["episodes"] for b in bins), default=0)
        chart.line(xs, [b["mean"] for b in bins], f"mean of {many}, 95 %")
        marks = returns["versions"]
    else:
        xs, ys = _both(curves.episodes)
        chart.dots(xs, ys, "episodes")
        marks = curves.versions
    tried = curves.evaluations
    xs, ys = _both(tried)
    chart.band(xs, [p.low for p in tried], [p.high for p in tried])
    chart.line(xs, ys, "evaluated, 95 %" if tried else "", kind="b")
    if chart.is_empty:
        return note(nothing_yet(run, "no episode has ended"))
    for steps, version in marks:
        chart.mark(steps, f"version {version}")
    for name, level in _levels(run).items():
        chart.level(level, name)
    return chart.svg() + _verdict(run)


def _both(points: list[Point]) -> tuple[list[float], list[float]]:
    return [p.agent_steps for p in points], [p.mean for p in points]


def _levels(run: RunView) -> dict[str, float]:
    """Give the returns to compare with by name, as far as they were measured."""
    known = {name: run.baselines.get(name) for name in ("random", "best")}
    if known["random"] is None:  # episodes before the first policy are of random actions
        known["no policy"] = run.experience.returns.get("no_policy")
    means = {k: number(v.get("mean") if isinstance(v, dict) else v) for k, v in known.items()}
    return {name: mean for name, mean in means.items() if mean is not None}


def _verdict(run: RunView) -> str:
    """Say in one sentence how good it is, as far as the evaluations tell."""
    evaluation = run.status.get("evaluation")
    evaluation = evaluation if isinstance(evaluation, dict) else {}
    mean, low, high = (number(evaluation.get(k)) for k in ("mean", "low", "high"))
    ys = [p[1] for p in run.experience.returns.get("points", ())]
    ys = (ys or _both(run.curves.episodes)[1])[-_MEAN_OF:]
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
    stored, found = run.experience, run.experience.account
    parts = []
    if stored.problem:
        parts.append(note(f"The store cannot be read: {stored.problem}", "bad"))
    elif not stored.chunks:
        parts.append(note("Nothing is stored yet."))
    if found.get("is_behind"):
        parts.append(note("The store is being read: these figures still grow."))
    trained, share = number(found.get("trained_on")), number(found.get("trained_share"))
    of = "" if share is None else f" ({share:.0%})"
    facts = [
        ("steps recorded", count(number(found.get("recorded")))),
        ("steps stored", count(number(found.get("acknowledged")))),
        ("steps missing between", _alarm(found.get("missing"))),
        ("steps known to the learner", count(number(found.get("known")))),
        ("steps trained on", f"{count(trained)}{of}"),
        ("chunks stored", f"{count(stored.chunks)}, {size(number(found.get('store_bytes')))}"),
        ("chunks refused, kept apart", _alarm(found.get("quarantined"))),
        ("chunks damaged since", _alarm(found.get("damaged"))),
        ("disk left", size(number(found.get("disk_free_bytes")))),
    ]
    for what in ("dropped", "left_out", "invalid"):
        why = found.get(what)
        for reason, steps in sorted(why.items())[:12] if isinstance(why, dict) else ():
            facts.append((f"{what.replace('_', ' ')}: {reason}", _alarm(steps)))
    parts.append(facts_table(facts))
    parts += [_robot_lost(robot) for robot in heard.robots]
    return "".join(parts)


def _alarm(value: object) -> str:
    found = number(value)
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
