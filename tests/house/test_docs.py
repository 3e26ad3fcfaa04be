"""Documents that lead somewhere and speak of this project only."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_to_a_file(page):
    links = LINK.findall(page.read_text())
    inside = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in inside if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_begins_with_its_title(page):
    text = page.read_text()
    if text.startswith("---\n"):  # settings of the site
        text = text.split("---\n", 2)[2].lstrip()
    assert text.startswith(("# ", "<")), text[:80]


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


@pytest.fixture(scope="module")
def design() -> str:
    return (ROOT / "docs" / "design.md").read_text()


def drawn_in(tree: str) -> dict[str, set[str]]:
    """Words beside and below each folder of the drawn tree, such as ``wm_core/link/robot``."""
    words: dict[str, set[str]] = {}
    folders: list[str] = []
    for line in tree.splitlines():
        entry = re.match(r"( *)([a-z_]+)(/|\.py)(\s|$)", line)
        if entry:
            depth = len(entry[1]) // 2
            folders = folders[:depth] + [entry[2]] * (entry[3] == "/")
        if folders:
            words.setdefault("/".join(folders), set()).update(re.findall(r"[a-z_]+", line))
    return words


def options_of(model, prefix="--"):
    """Options that the command line makes of a settings model, those of parts included."""
    for name, field in model.model_fields.items():
        yield (prefix + name).replace("_", "-")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from options_of(field.annotation, f"{prefix}{name}.")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_that_a_page_names_exists(page):
    from wm_core.config import Config
    from wm_core.renamed import RENAMED

    old = {f"--{name}".replace("_", "-") for name in RENAMED}
    known = {*options_of(Config), *old}
    named = re.findall(r"--(?:world|behavior|optim|replay|train)\.[a-z.-]*[a-z]", page.read_text())
    positive = [option.replace(".no-", ".") for option in named]
    assert [o for o in positive if o not in known and not o.startswith("--world.own.")] == []


def test_the_design_page_draws_every_module(design):
    drawn = drawn_in(design.split("```")[1])
    packages = {
        p.parent for top in ("wm_core", "wm_ros") for p in (ROOT / top).rglob("__init__.py")
    }
    rooms = {str(folder.relative_to(ROOT)) for folder in packages}
    assert {name for name in drawn if name.split("/")[0] in ("wm_core", "wm_ros")} == rooms
    missing = {
        room: undrawn
        for room in sorted(rooms)
        if (
            undrawn := {p.stem for p in (ROOT / room).glob("[a-z]*.py")}
            - drawn[room]
            - {"settings"}
        )
    }
    assert missing == {}


def test_the_design_page_says_what_runs_on_the_robot_as_the_linter_does(design):
    contract = re.search(r'id = "robot"\n.*?source_modules = \[(.*?)\]', PYPROJECT, re.DOTALL)
    listed = re.search(r"What runs on the robot: ((?:`[a-z_.]+`\s*)+)", design)
    assert listed[1].replace("`", "").split() == re.findall(r'"(.*?)"', contract[1])


def test_the_design_page_names_no_module_that_is_gone(design):
    modules = {path.stem for path in ROOT.glob("wm_*/**/*.py")} | {"wm_core", "wm_ros", "sim"}
    rooms = {path.parent.name for path in (ROOT / "wm_core").glob("*/__init__.py")}
    named = set(re.findall(r"`([a-z_]+)\.([a-z_]+)`", design))
    assert {
        f"{room}.{name}" for room, name in named if room in rooms and name not in modules
    } == set()
