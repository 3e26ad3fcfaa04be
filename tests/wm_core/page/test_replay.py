"""Episodes are listed and looked at step by step, with and without a model to dream of them."""

from __future__ import annotations

import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.wm_core.stored import LEARNABLE, SIDE, learnable
from wm_core.link.trainer.tokens import add_token
from wm_core.page.application import HEADERS

SESSION = "0" * 32
ONE = f"/ui/episodes/robot/{SESSION}/1"


@pytest.fixture
def site(page, tagged, get, tmp_path):
    """Asks for a path of the page of a run with four episodes of 25 steps."""
    tagged.fill(5, episode=25, spec=LEARNABLE, edit=learnable)
    server = page(root=tmp_path)
    origin = server.url.removesuffix("/ui/")
    return lambda path: get.get(origin + path)


def words(answer):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", answer.text)))


def test_episodes_are_listed_newest_first_and_lead_to_their_pages(site):
    answer = site("/ui/episodes")
    found = re.findall(r'href="(/ui/episodes/[^"]+)"', answer.text)
    assert found == [f"/ui/episodes/robot/{SESSION}/{n}" for n in (3, 2, 1, 0)]
    assert f"robot 00000000.1 {sum(range(25, 50))} 25 49 ended" in words(answer)
    assert 'href="/ui/episodes"' in site("/ui/").text


def test_a_step_shows_its_picture_reward_and_action(site):
    answer = site(f"{ONE}?step=3")
    assert "3 of 24" in words(answer)
    assert "28" in words(site(f"{ONE}/step/3"))  # its reward
    assert "left" in site(f"{ONE}/step/3").text
    picture = site(f"{ONE}/frame/3?camera=image")
    assert picture.headers["content-type"] == "image/png"
    pixels = np.asarray(Image.open(io.BytesIO(picture.content)))
    assert (pixels == (28, 0, 7)).all()
    ways = re.findall(rf'href="{ONE}\?step=(\d+)&amp;camera=image">([^<]+)<', answer.text)
    assert ("4", "on") in ways
    assert ("24", "last") in ways


def test_without_a_checkpoint_the_recorded_pictures_are_shown_alone(site):
    assert "no checkpoint yet" in words(site(f"{ONE}/dreamt/3"))
    assert site(f"{ONE}/dream/3").status_code == 404
    assert site(f"{ONE}/frame/3").status_code == 200


def test_the_dream_is_beside_each_step(site, model):
    dream = site(f"{ONE}/dream/20?camera=image")
    assert Image.open(io.BytesIO(dream.content)).size == (SIDE, SIDE)
    told = site(f"{ONE}/dreamt/20")
    assert "The model saw the steps 0 to 7" in words(told)
    assert told.text.count("<svg") == 3


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"/ui/episodes/robot/{SESSION}/9", "expected an episode"),
        (f"/ui/episodes/nobody/{SESSION}/0", "holds no session"),
        ("/ui/episodes/<script>/x/0", "holds no session"),
        (f"{ONE}?step=25", "from 0 to 24"),
        (f"{ONE}?step=-1", "from 0 to 24"),
        (f"{ONE}?step=many", "a whole number"),
        (f"{ONE}/frame/25", "from 0 to 24"),
    ],
)
def test_what_is_not_there_is_a_sentence(site, path, said):
    answer = site(path)
    assert answer.status_code == 404
    assert said in words(answer)
    assert "<script>" not in answer.text


@pytest.mark.parametrize("path", ["/ui/episodes", ONE, f"{ONE}/frame/0", f"{ONE}/dreamt/0"])
def test_every_answer_has_the_headers_that_keep_scripts_out(site, path):
    answer = site(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert not re.search(r"<script(?![^>]* src=)", answer.text)


@pytest.mark.parametrize(
    "path", ["/ui/episodes", *(f"{ONE}{p}" for p in ("", "/frame/0", "/dream/0", "/step/0"))]
)
def test_with_tokens_nothing_is_seen_without_one(path, page, tagged, get, tmp_path):
    tagged.fill(5, episode=25, spec=LEARNABLE, edit=learnable)
    tokens = tmp_path / "tokens"
    add_token(tokens, "anna")
    server = page(root=tmp_path, tokens=tokens)
    answer = get.get(server.url.removesuffix("/ui/") + path)
    assert answer.status_code == 401
    assert SESSION not in answer.text


def test_a_run_without_a_store_has_an_empty_list(page, get, tmp_path):
    answer = get.get(page(root=tmp_path).url + "episodes")
    assert "No episode is stored yet" in words(answer)
