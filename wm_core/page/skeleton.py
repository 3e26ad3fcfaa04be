"""The places of the page that are filled, and its small pages: the form for a token, a refusal."""

from __future__ import annotations

from wm_core.page.policy_reader import PolicyFacts
from wm_core.page.wording import note, text

#: of every page
HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>wm_ros</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/ui/page.css">"""

SKELETON = f"""{HEAD}<script src="/ui/page.js" defer></script></head><body class="live">
<header><h1 id="title"></h1><nav><a href="/ui/episodes">Episodes</a></nav>
<div id="links" role="status"></div>
<p id="silence" class="bad" role="alert" hidden></p></header>
<main>
<section><h2>Robot</h2><div id="robots"></div>
<details><summary>Counters</summary><div id="counters"></div></details></section>
<section><h2>Is it better?</h2><div id="better"></div></section>
<section><h2>Does it understand?</h2><div id="dream-age"></div>
<div id="understands"></div></section>
<section><h2>Is anything lost?</h2><div id="lost"></div></section>
<section><h2>Policies</h2><div id="policies"></div><div id="forms"></div></section>
<section><h2>Learner</h2><div id="learner"></div>
<details><summary>Losses</summary><div id="losses"></div></details></section>
</main>
<noscript><p class="muted">Without script this page does not update itself: load it again.</p>
</noscript></body></html>
"""


def login_page(why: str) -> str:
    """The form in which a token is shown, with the reason of a refusal."""
    return f"""{HEAD}</head><body class="small"><h1>wm_ros</h1>
<form method="post" action="/ui/login"><label>Token
<input name="token" type="password" autocomplete="current-password" autofocus required></label>
<button>Look</button></form>{note(why, "bad") if why else ""}
<p class="muted">A token is made by
<code>wm robot add NAME --may-look --tokens FILE</code>.</p></body></html>
"""


def refused_page(why: str) -> str:
    """A page that says why nothing is shown or changed."""
    return f"""{HEAD}</head><body class="small"><h1>wm_ros</h1>{note(why, "bad")}
<p><a href="/ui/">Back to the page</a></p></body></html>
"""


def rollback_form(policies: PolicyFacts, form_token: str) -> str:
    """For each channel that runs something, the two clicks that bring back what came before."""
    parts = []
    for channel in policies.channels:
        course = channel.course
        if course is None or course.plan.current is None:
            continue
        current, rollout = course.plan.current, course.plan.rollout
        what = f"robots leave version {current.version} for the one before it"
        if rollout is not None:
            what = f"the roll-out of version {rollout.release.version} ends"
        warning = note(f"On channel {channel.name} {what}.")
        parts.append(
            f"<details><summary>Roll back {text(channel.name)} …</summary>"
            f'<form method="post" action="/ui/rollback">{warning}'
            f'<input type="hidden" name="channel" value="{text(channel.name)}">'
            f'<input type="hidden" name="current" value="{text(current.manifest)}">'
            f'<input type="hidden" name="form" value="{text(form_token)}">'
            "<button>Roll back now</button></form></details>"
        )
    return "".join(parts)
