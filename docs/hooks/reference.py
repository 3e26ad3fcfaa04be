"""Makes the reference pages from the code: settings, parameters of the nodes, Python API."""

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

#: rooms whose modules have a page of the API, and what the page is called
ROOMS = {
    "wm_core": "Settings and parts",
    "wm_core.contract": "What robot and trainer agree on",
    "wm_core.format": "Recordings",
    "wm_core.store": "Experience at rest",
    "wm_core.replay": "Replay",
    "wm_core.nn": "Layers",
    "wm_core.world": "World models",
    "wm_core.behavior": "Behaviours",
    "wm_core.agents": "Agents",
    "wm_core.training": "Training",
    "wm_core.exporting": "Export",
    "wm_core.library": "Library",
    "wm_core.link.robot": "Wire, the robot's end",
    "wm_core.link.trainer": "Wire, the trainer's end",
    "wm_core.robot": "Robot file",
    "wm_ros": "Robot nodes",
    "sim": "Simulator",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the lists of decisions and of API pages into the navigation."""
    decisions = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    lists: dict[str, list[Any]] = {
        "decisions/": [f"decisions/{name}" for name in decisions],
        "api/": ["api/index.md", *({title: _page(room)} for room, title in ROOMS.items())],
    }

    def fill(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {name: fill(inside) for name, inside in entry.items()}
        if isinstance(entry, list):
            return [fill(inside) for inside in entry]
        return lists.get(entry, entry)

    config.nav = fill(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page of the API for each room."""
    for room, title in ROOMS.items():
        folder = ROOT / room.replace(".", "/")
        modules = sorted(path.stem for path in folder.glob("[a-z]*.py"))
        text = "\n\n".join([f"# {title}: `{room}`", *(f"::: {room}.{name}" for name in modules)])
        files.append(File.generated(config, _page(room), content=text + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the tables that a page of docs/ asks for by a comment."""
    for marker, table in (
        ("<!-- settings -->", settings),
        ("<!-- renamed -->", renamed),
        ("<!-- parameters -->", parameters),
        ("<!-- robot file -->", robot_file),
        ("<!-- front door -->", front_door),
        ("<!-- decisions -->", decisions),
        ("<!-- deviations -->", deviations),
    ):
        if marker in markdown:
            markdown = markdown.replace(marker, table())
    return markdown


def decisions() -> str:
    """A list of the pages of docs/decisions by their titles."""
    pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    return "\n".join(f"- [{p.read_text().splitlines()[0].lstrip('# ')}]({p.name})" for p in pages)


def deviations() -> str:
    """A table of every ``Deviates:`` in a docstring of wm_core."""
    rows = []
    for path in sorted((ROOT / "wm_core").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            for part in (ast.get_docstring(node) or "").split("\n\n"):
                if "Deviates:" in part:
                    where = module if isinstance(node, ast.Module) else f"{module}.{node.name}"
                    text = " ".join(part.partition("Deviates:")[2].replace("``", "`").split())
                    rows.append((f"`{where}`", text))
    return _table(("where", "what differs"), rows)


def _page(room: str) -> str:
    return f"api/{room.replace('wm_core.', '').replace('.', '_')}.md"


# ------------------------------------------------------------------------------ settings


def settings() -> str:
    """Every option of ``wm train``, by the part that it belongs to."""
    from wm_core.library.run_folder import TrainSettings

    return "\n\n".join(_sections(TrainSettings, ""))


def renamed() -> str:
    """A table of old option names and what they are called now."""
    from wm_core.renamed import RENAMED

    def option(name: str) -> str:
        return f"`--{name.replace('_', '-')}`"

    rows = [(option(old), ", ".join(map(option, new))) for old, new in RENAMED.items()]
    return _table(("old option", "is called now"), rows)


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    rows, inside = [], []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            inside.append((kind, f"{prefix}{name}."))
        else:
            shown = [about.name for about in field.metadata if getattr(about, "name", None)]
            option = f"--{prefix}{(shown or [name])[0]}".replace("_", "-")
            rows.append((f"`{option}`", _value(field.default), _range(field), _text(field)))
    if rows:
        title = f"`--{prefix[:-1]}.*`" if prefix else "The whole run"
        level = "#" * (2 + max(0, prefix.count(".") - 1))
        about = inspect.getdoc(model) or ""
        heads = ("option", "default", "values", "what it decides")
        yield f"{level} {title}\n\n{about}\n\n{_table(heads, rows)}"
    for kind, below in inside:
        yield from _sections(kind, below)


def _text(field: FieldInfo) -> str:
    return field.description or ""


def _value(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return "none" if not value else str(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _range(field: FieldInfo) -> str:
    """The values that an option takes, in words."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}
    bounds = [
        f"{sign} {getattr(about, name)}"
        for about in field.metadata
        for name, sign in signs.items()
        if getattr(about, name, None) is not None
    ]
    return ", ".join([_kind(field.annotation), *bounds])


def _kind(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _kind(args[0])
    if origin is dict:
        return "entries by name"
    if kind is Any:
        return "a word or numbers"
    if origin is Literal:
        return " ".join(f"`{word}`" for word in args)
    if origin in (Union, UnionType):
        return " or ".join("none" if arg is NoneType else _kind(arg) for arg in args)
    if origin is tuple:
        return (
            f"list of {_kind(args[0])}" if args[-1] is ... else f"{len(args)} x {_kind(args[0])}"
        )
    names = {bool: "on or off", int: "integer", float: "number", str: "text", Path: "path"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


# ---------------------------------------------------------------------------- parameters


def parameters() -> str:
    """Every parameter of the two nodes."""
    from wm_ros.parameters.params import POLICY, SIM, sensor_params

    both = [param for param in POLICY if param in SIM]
    sections = []
    for title, table in (
        ("Both nodes", both),
        ("`policy_node`", [param for param in POLICY if param not in both]),
        ("`sim_node`", [param for param in SIM if param not in both]),
        ("`policy_node`, for each of its sensors", sensor_params("SENSOR")),
    ):
        rows = [
            (
                f"`{param.name}`",
                _value(tuple(param.default) if isinstance(param.default, list) else param.default),
                " ".join(f"`{word}`" for word in param.choices) or _between(param.low, param.high),
                param.text,
            )
            for param in table
        ]
        heads = ("parameter", "default", "values", "meaning")
        sections.append(f"## {title}\n\n{_table(heads, rows)}")
    return "\n\n".join(sections)


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return "" if high is None else f"≤ {high:,}"
    return f"≥ {low:,}" if high is None or high >= 2**40 else f"{low:,} .. {high:,}"


# ---------------------------------------------------------------------------- robot file


def robot_file() -> str:
    """Every field of a robot file: of the file, of each kind of part and channel, of the rest."""
    from wm_core.robot import channels, episode, parts, robot_file, safety

    sections = [_entry("## The file", robot_file.RobotFile)]
    for title, bases, kinds in (
        ("Parts of `observations`", (parts.SensorPart, parts.NumericPart), parts.PARTS),
        ("Channels of `actions`", (channels.Channel,), channels.CHANNELS),
    ):
        sections.append(_entry(f"## {title}", bases[0]))
        sections += [_entry("### Every part with numbers", b, bases[:1]) for b in bases[1:]]
        for kind in kinds:
            words = get_args(kind.model_fields["type"].annotation)
            heading = " or ".join(f"`{word}`" for word in words)
            sections.append(_entry(f"### {heading}", kind, bases))
    for title, model in (
        ("Numbers of `values`", episode.NamedNumber),
        ("`reward`", episode.Reward),
        ("`episode`", episode.EpisodeRules),
        ("`episode.reset`", episode.Reset),
        ("`safety`", safety.Safety),
    ):
        sections.append(_entry(f"## {title}", model))
    return "\n\n".join(sections)


def _entry(heading: str, model: type[BaseModel], bases: tuple[type[BaseModel], ...] = ()) -> str:
    """A table of the fields of a class, without those that are as in ``bases``."""
    said = {(n, repr(f.default), f.description) for b in bases for n, f in b.model_fields.items()}
    rows = [
        (f"`{field.alias or name}`", _yaml(field.default), _range(field), _text(field))
        for name, field in model.model_fields.items()
        if (name, repr(field.default), field.description) not in said
        and name != "of_actions"
        and not (bases and name == "type")
    ]
    about = " ".join((inspect.getdoc(model) or "").replace("``", "`").split())
    table = _table(("field", "default", "values", "meaning"), rows) if rows else ""
    return f"{heading}\n\n{about}\n\n{table}".rstrip()


def _yaml(value: object) -> str:
    """A default as the file would state it; empty for parts that have fields of their own."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if isinstance(value, BaseModel) else _value(value)


# ----------------------------------------------------------------------------------- API


def front_door() -> str:
    """A table of what ``import wm_core`` offers, each name beside the first line of its text."""
    import wm_core
    from wm_core.parts import PartTable

    names = {name for names in wm_core._HOMES.values() for name in names} & {*wm_core.__all__}
    rows = []
    for name in sorted(names, key=lambda name: (name.isupper(), name)):
        thing = getattr(wm_core, name)
        if isinstance(thing, PartTable):
            text = f"The table of parts of the kind {thing.kind}: {', '.join(thing.names())}."
            rows.append((f"`{name}`", text))
        else:
            text = (inspect.getdoc(thing) or "").splitlines()[0].replace("``", "`")
            rows.append((f"[`{name}`][{thing.__module__}.{thing.__qualname__}]", text))
    return _table(("name", "what it is or does"), rows)
