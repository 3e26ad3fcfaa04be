"""Documents that lead somewhere and speak of this project only."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_to_a_file(page):
    links = LINK.findall(page.read_text())
    inside = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_the_first_screen_of_the_readme_is_the_two_commands():
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    assert "make demo" in screen
    assert "make test" in screen


def test_the_changelog_has_an_unreleased_part():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text
    assert "### Added" in text


def test_every_decision_is_numbered_once_and_says_what_follows():
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        text = path.read_text()
        for part in ("## Context", "## Choice", "## Alternatives", "## Consequence"):
            assert part in text, f"{path.name} lacks {part!r}"


def test_the_readme_names_verbs_that_exist():
    from wm_core.cli.main import VERBS

    code = re.findall(
        r"^(?:\$ )?(?:\.venv/bin/)?wm ([a-z]+)", (ROOT / "README.md").read_text(), re.M
    )
    assert code
    assert set(code) <= set(VERBS)


def test_the_design_page_draws_the_tree_that_there_is():
    page = (ROOT / "docs" / "design.md").read_text()
    tree = page.split("```")[1]
    for folder in ("wm_core", "wm_ros", "sim"):
        assert f"{folder}/" in tree
    parts = {p.parent.name for p in (ROOT / "wm_core").glob("*/__init__.py")}
    drawn = set(re.findall(r"^  ([a-z]+)/ ", tree, re.M))
    assert drawn == parts
    words = set(re.findall(r"[a-z_]+", tree))
    nodes = {path.stem for path in (ROOT / "wm_ros").glob("[a-z]*.py")}
    assert nodes <= words, f"modules of wm_ros that are not drawn: {nodes - words}"
    modules = {path.stem for path in ROOT.glob("wm_*/**/*.py")} | {"wm_core", "wm_ros", "sim"}
    named = set(re.findall(r"`([a-z_]+)\.([a-z_]+)`", page))
    gone = {f"{a}.{b}" for a, b in named if a in parts and b not in modules}
    assert gone == set()
