"""The list of episodes and the pages of one in a real browser, where there is one."""

from __future__ import annotations

import json

import pytest

from tests.wm_core.stored import LEARNABLE, SIDE, learnable
from wm_core.link.trainer.tokens import add_token

pytestmark = pytest.mark.slow  # apt-get install chromium; pytest -m slow tests/wm_core/page
LAST = 24
#: the colour of a picture's first point
COLOUR = """(() => {{
  const image = document.getElementById("{0}"), canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const brush = canvas.getContext("2d");
  brush.drawImage(image, 0, 0, 1, 1, 0, 0, 1, 1);
  return [...brush.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}})()"""


@pytest.fixture
def filled(tagged):
    """Four whole episodes of 25 steps, of which each picture says its number."""
    tagged.fill(5, episode=LAST + 1, spec=LEARNABLE, edit=learnable)


def has(place, words):
    """A script that is true as soon as an element says these words."""
    return f"document.querySelector({json.dumps(place)})?.innerText.includes({json.dumps(words)})"


def drawn(name):
    """A script that is true as soon as a picture is there."""
    return f"document.getElementById('{name}')?.complete && {width(name)} === {SIDE}"


def width(name):
    return f"document.getElementById('{name}').naturalWidth"


def go_to(browser, step):
    browser.run(
        f"{{const s = document.getElementById('replay-step'); s.value = {step};"
        "s.dispatchEvent(new Event('input'))}"
    )
    browser.wait(has("#replay-numbers", f"{step} of {LAST}"))
    browser.wait(f"document.getElementById('replay-frame').src.includes('/frame/{step}?')")
    browser.wait(drawn("replay-frame"))


def test_an_episode_is_found_and_turned_step_by_step_with_the_dream_beside(
    page, filled, model, tmp_path, browser
):
    server = page(root=tmp_path)
    browser.open(server.url)
    browser.wait("!!document.querySelector('nav a')")
    browser.run("document.querySelector('nav a').click()")
    browser.wait("document.querySelectorAll('table.list a').length === 4")
    assert "00000000.3" in browser.text("table.list tbody tr")  # the newest one first
    browser.run("document.querySelectorAll('table.list a')[2].click()")
    browser.wait(has("h1", "00000000.1"))
    browser.wait(has("#replay-numbers", f"0 of {LAST}"))
    browser.wait(drawn("replay-dream"))
    for step in (7, 20):
        go_to(browser, step)
        assert browser.run(COLOUR.format("replay-frame")) == [25 + step, 0, 7]
        assert "left" in browser.text("#replay-numbers")
        browser.wait(f"document.getElementById('replay-dream').src.includes('/dream/{step}?')")
        browser.wait(drawn("replay-dream"))
    browser.wait(has("#replay-dreamt", "The model saw the steps"))
    browser.wait("document.querySelectorAll('#replay-dreamt svg').length === 3")
    browser.run("document.getElementById('replay-play').click()")
    browser.wait(f"document.getElementById('replay-step').value === '{LAST}'")
    browser.wait(has("#replay-play", "Play"))  # it stops at the last step
    browser.wait(f"document.getElementById('replay-frame').src.includes('/frame/{LAST}?')")
    origin = server.url.removesuffix("/ui/")
    assert {url for url in browser.requests if not url.startswith(origin)} == set()
    assert browser.complaints == []


def test_without_a_model_the_recorded_pictures_stand_alone(page, filled, tmp_path, browser):
    address = f"{page(root=tmp_path).url}episodes/robot/{0:032x}/0"
    browser.open(address)
    browser.wait(drawn("replay-frame"))
    browser.wait(has("#replay-dreamt", "no checkpoint yet"))
    browser.wait("document.getElementById('replay-dream').hidden")
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"go()\">')")
    go_to(browser, 3)
    assert any("Content Security Policy" in said for said in browser.complaints)


def test_without_a_token_no_episode_is_seen(page, filled, tmp_path, browser):
    token = add_token(tmp_path / "tokens", "anna", may_look=True)
    url = page(root=tmp_path, tokens=tmp_path / "tokens").url
    for path in ("episodes", f"episodes/robot/{0:032x}/0"):
        browser.open(url + path)
        browser.wait("!!document.querySelector('input[name=token]')")
        assert "00000000" not in browser.text()
    browser.run(f"document.querySelector('input').value = '{token}'")
    browser.run("document.querySelector('button').click()")
    browser.wait("document.body.dataset.news > 0")
    browser.open(url + "episodes")
    browser.wait("document.querySelectorAll('table.list a').length === 4")


@pytest.mark.parametrize(("wide", "high"), [(1440, 900), (390, 844)])
def test_no_episode_hangs_over_the_edge_of_the_screen(page, filled, tmp_path, browser, wide, high):
    browser.size(wide, high)
    url = page(root=tmp_path).url
    for path, there in (
        ("episodes", "!!document.querySelector('table.list')"),
        (f"episodes/robot/{0:032x}/0", drawn("replay-frame")),
    ):
        browser.open(url + path)
        browser.wait(there)
        assert browser.run("document.documentElement.scrollWidth") <= wide
