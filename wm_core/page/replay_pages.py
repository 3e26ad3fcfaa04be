"""The pages of episodes: their list, one of them, and what changes with its steps."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from wm_core.library.replayed import EpisodeList, Replay
from wm_core.page.drawing import Chart, action_bars, in_short
from wm_core.page.skeleton import HEAD
from wm_core.page.wording import count, facts_table, note, text
from wm_core.store.episodes import StoredEpisode

ENDS = {
    "terminal": "ended for good",
    "last": "ended",
    "gap": "steps are missing",
    "open": "goes on",
}


def episodes_page(listed: EpisodeList) -> str:
    """List episodes, each with the way to it."""
    problem = listed.problem
    parts = [note(f"The store cannot be read: {problem}", "bad")] if problem else []
    if listed.is_behind:
        parts.append(note("Much has arrived: load this page again for the rest.", "warn"))
    if not listed.episodes and not problem:
        parts.append(note("No episode is stored yet."))
    lines = "".join(
        f'<tr><td><a href="{address(e)}">{text(e.robot)} {text(e.session[:8])}.{e.number}</a></td>'
        f'<td class="number">{in_short(e.total, 5)}</td><td class="number">{count(e.steps)}</td>'
        f"<td>{e.version if e.version >= 0 else 'none'}</td><td>{ENDS[e.end]}</td></tr>"
        for e in listed.episodes
    )
    if lines:
        parts.append(
            '<table class="list"><thead><tr><th>episode</th>'
            '<th class="number">return</th><th class="number">steps</th>'
            f"<th>policy</th><th>end</th></tr></thead><tbody>{lines}</tbody></table>"
        )
    return _page("Episodes", f'<section class="whole">{"".join(parts)}</section>')


def address(episode: StoredEpisode) -> str:
    """The path of an episode's page."""
    return f"/ui/episodes/{quote(episode.robot)}/{quote(episode.session)}/{episode.number}"


def episode_page(replay: Replay, step: int, camera: str) -> str:
    """Show one step of an episode: what the camera saw, the dream, the action, the reward."""
    episode, base = replay.episode, address(replay.episode)
    last = episode.steps - 1
    name = f"{text(episode.robot)} {text(episode.session[:8])}.{episode.number}"
    facts = facts_table(
        [
            ("return", in_short(episode.total, 5)),
            ("steps", count(episode.steps)),
            ("policy", str(episode.version) if episode.version >= 0 else "none"),
            ("end", ENDS[episode.end]),
        ]
    )
    cameras = " ".join(
        f'<a href="{base}?step={step}&amp;camera={quote(key)}">{text(key)}</a>'
        for key in replay.spec.images
        if len(replay.spec.images) > 1
    )
    figures = "".join(
        f'<figure><figcaption>{words}</figcaption><img id="replay-{kind}" alt="{words}" '
        f'src="{base}/{kind}/{step}?camera={quote(camera)}"></figure>'
        for kind, words in (("frame", "what the camera saw"), ("dream", "what it imagined"))
        if camera
    )
    ways = " ".join(
        f'<a href="{base}?step={to}&amp;camera={quote(camera)}">{words}</a>'
        for words, to in (
            ("first", 0), ("10 back", max(0, step - 10)), ("back", max(0, step - 1)),
            ("on", min(last, step + 1)), ("10 on", min(last, step + 10)), ("last", last),
        )
    )  # fmt: skip
    return _page(
        f"Episode {name}",
        f'<section id="replay" data-base="{base}" data-camera="{text(camera)}" data-last="{last}" '
        f'data-period="{replay.spec.period_s}">{f"<p>{cameras}</p>" if cameras else ""}'
        f'<div class="cameras replayed">{figures}</div>'
        f'<p><input id="replay-step" type="range" min="0" max="{last}" value="{step}" '
        f'aria-label="step" hidden><button id="replay-play" type="button" hidden>Play</button></p>'
        f'<p id="replay-ways">{ways}</p><div id="replay-numbers">{step_parts(replay, step)}</div>'
        f'</section><section><h2>Does it understand?</h2><div id="replay-dreamt"></div>'
        f'<noscript><p><a href="{base}/dreamt/{step}">Rewards and surprise of this dream</a></p>'
        f"</noscript></section><section><h2>The episode</h2>{facts}{_rewards(replay)}</section>",
        script=True,
    )


def step_parts(replay: Replay, step: int) -> str:
    """What one step says in numbers: reward and action."""
    about = replay.step(step)
    names, spec = list(replay.spec.action.names), replay.spec.action
    facts = [
        ("step", f"{step} of {replay.episode.steps - 1}"),
        ("reward", in_short(about["reward"], 4)),
        ("policy", str(about["version"]) if about["version"] >= 0 else "none"),
        ("who acted", "a person or a safety rule" if about["is_intervention"] else "the robot"),
    ]
    low, high = ([], []) if spec.discrete else (list(spec.low), list(spec.high))
    return facts_table(facts) + action_bars(about["action"][:64], low, high, names)


def dream_parts(told: dict[str, Any], step: int) -> str:
    """Charts of the dream that ``step`` is in, by the step of the episode."""
    first, seen = told["first_step"], told["first_step"] + told["observed"] - 1
    parts = [
        note(f"The model saw the steps {first} to {seen}, and imagined the rest from the actions.")
    ]
    if told.get("limit"):
        parts.append(note(f"{told['limit']}."))
    for label, curves in (
        ("reward", {"got": told["reward"], "imagined": told["reward_imagined"]}),
        ("error of the picture (of 255)", {"": told["error"] or []}),
        ("surprise (nats)", {"": told["surprise"]}),
    ):
        chart = Chart("step", label, height=120)
        for kind, (name, values) in zip("ab", curves.items(), strict=False):
            known = [(first + i, v) for i, v in enumerate(values) if v is not None]
            if known:
                chart.line([x for x, _ in known], [y for _, y in known], name, kind=kind)
        if not chart.is_empty:
            chart.mark(seen, "the last step that was seen")
            chart.mark(step, "this step")
            parts.append(f"<h3>{text(label)}</h3>{chart.svg()}")
    return "".join(parts)


def _rewards(replay: Replay) -> str:
    """A chart of the rewards of the whole episode, of long ones every n-th."""
    every = max(1, replay.episode.steps // 500)
    chart = Chart("step", "reward", height=120)
    steps = range(0, replay.episode.steps, every)
    chart.line(list(steps), [float(replay.reward[t]) for t in steps])
    return chart.svg()


def _page(title: str, main: str, *, script: bool = False) -> str:
    more = '<script src="/ui/replay.js" defer></script>' if script else ""
    return (
        f"{HEAD}{more}</head><body><header><h1>{title}</h1>"
        '<nav><a href="/ui/">Live</a> <a href="/ui/episodes">Episodes</a></nav></header>'
        f"<main>{main}</main></body></html>\n"
    )
