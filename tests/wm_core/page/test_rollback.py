"""Bringing back the policy before: only where allowed, by whom, and of what was shown."""

from __future__ import annotations

import re

import pytest

from wm_core.link.trainer.channels import Channels
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.link.trainer.tokens import add_token


@pytest.fixture
def channels(tmp_path):
    policies = tmp_path / "run" / "policies"
    repository = PolicyRepository(policies)
    for version in (1, 2):
        repository.publish(b"onnx %d" % version, b"golden", version=version)
    return Channels(policies)


def form_in(text):
    return dict(re.findall(r'name="(channel|current|form)" value="([^"]*)"', text))


def test_two_clicks_bring_back_what_came_before(page, get, channels):
    url = page(allow_rollback=True).url
    form = form_in(get.get(url).text)
    assert form["current"] == channels.course("main").plan.current.manifest
    answer = get.post(f"{url}rollback", data=form)
    assert answer.status_code == 303
    course = channels.course("main")
    assert (course.plan.current.version, course.follow) == (1, False)
    again = get.post(f"{url}rollback", data=form)  # of a page that is old by now
    assert again.status_code == 409
    assert "changed meanwhile" in again.text
    assert channels.course("main").plan.current.version == 1


def test_without_the_option_nothing_can_be_changed(page, get, channels):
    url = page().url
    assert "rollback" not in get.get(url).text
    current = channels.course("main").plan.current.manifest
    answer = get.post(f"{url}rollback", data={"channel": "main", "current": current})
    assert answer.status_code == 403
    assert channels.course("main").plan.current.version == 2


@pytest.mark.parametrize(
    ("change", "headers"),
    [
        ({}, {"Origin": "http://evil.example"}),
        ({}, {"Origin": "null"}),
        ({}, {"Sec-Fetch-Site": "cross-site"}),
        ({"form": "0" * 64}, {}),
        ({"form": ""}, {}),
    ],
)
def test_forms_of_other_sites_are_refused(page, get, channels, change, headers):
    url = page(allow_rollback=True).url
    form = form_in(get.get(url).text) | change
    assert get.post(f"{url}rollback", data=form, headers=headers).status_code == 403
    assert channels.course("main").plan.current.version == 2


def test_with_tokens_only_the_operator_may(page, get, channels, tmp_path):
    path = tmp_path / "tokens"
    robot, operator = (add_token(path, name) for name in ("kitchen", "operator"))
    person = add_token(path, "anna", may_look=True)
    url = page(allow_rollback=True, tokens=path).url
    for token, status in ((robot, 403), (person, 403), (operator, 303)):
        bearer = {"Authorization": f"Bearer {token}"}
        form = form_in(get.get(url, headers=bearer).text)
        assert get.post(f"{url}rollback", data=form, headers=bearer).status_code == status
    assert channels.course("main").plan.current.version == 1


def test_a_channel_without_an_earlier_release_says_so(page, get, channels):
    url = page(allow_rollback=True).url
    get.post(f"{url}rollback", data=form_in(get.get(url).text))
    current = channels.course("main").plan.current.manifest
    form = form_in(get.get(url).text) | {"channel": "main", "current": current}
    answer = get.post(f"{url}rollback", data=form)
    assert answer.status_code == 409
    assert "no release before" in answer.text
