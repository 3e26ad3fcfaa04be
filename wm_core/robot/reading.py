"""Reads a YAML file into a model and says of every error where it stands.

The document is composed first, so that each entry knows its line; an entry that stands twice, a
word that YAML reads as true or false, and a file that would grow without bound are told apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.files import siblings
from wm_core.robot.channels import CHANNELS
from wm_core.robot.entries import Misfit, Misfits
from wm_core.robot.parts import PARTS

_Model = TypeVar("_Model", bound=BaseModel)
_Steps = tuple[str | int, ...]

MAX_BYTES = 1 << 18  #: of a robot file
MAX_NODES = 20_000  #: entries, with those that aliases repeat
MAX_ERRORS = 20  #: that are listed

#: patterns of pydantic's messages, and what they mean to somebody who writes YAML
_WORDS = (
    (
        r"(Tuple|Dictionary|Value) should have at least (\d+) items?.*",
        r"expected at least \2 entry",
    ),
    (r"String should have at least (\d+) characters?", r"expected at least \1 character"),
    (r"Input should be ", "expected "),
    (r"a valid integer.*", "a whole number"),
    (r"a valid number.*", "a number"),
    (r"a valid string", "a text"),
    (r"a valid tuple", "a list"),
    (r"a valid boolean", "true or false"),
    (r"a valid dictionary( or .*)?", "entries with names"),
)
_BOOL = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads 1e-3 as a number, which YAML 1.1 takes for a word."""


_Loader.yaml_implicit_resolvers = {
    first: [*resolvers] for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


class _Document:
    """Holds what a file says, and where.

    Args:
        name: of the file, for errors.
        text: of the file.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        loader: Any = None
        try:
            loader = _Loader(text)
            self.root = loader.get_single_node()
            if self.root is None:
                raise SettingsError(f"{name}: expected a robot's description, got an empty file")
            self._nodes = 0
            self.errors = list(self._flaws(self.root, ()))
            self.data = None if self.errors else _tuples(loader.construct_document(self.root))
        except SettingsError:
            raise
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            why = " ".join(filter(None, (error.context, error.problem)))
            raise SettingsError(f"{name}:{line}: expected YAML, got {why}") from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise SettingsError(f"{name}:{line}: expected text, got {error.reason}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise SettingsError(f"{name}: expected YAML, got: {error}") from error
        finally:
            if loader is not None:
                loader.dispose()

    def _flaws(self, node: yaml.Node, path: _Steps, above: Sequence[int] = ()) -> Iterator[str]:
        """Walk the tree as it will be built; say what is no text, stands twice or never ends."""
        self._nodes += 1
        if self._nodes > MAX_NODES or id(node) in above or len(above) > 50:
            raise ValueError(f"more than {MAX_NODES} entries, or an alias within itself")
        above = (*above, id(node))
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                yield from self._flaws(item, (*path, i), above)
        if not isinstance(node, yaml.MappingNode):
            return
        lines: dict[str, int] = {}
        for key, value in node.value:
            line, merge = key.start_mark.line + 1, key.tag.endswith(":merge")
            if not isinstance(key, yaml.ScalarNode) or not key.tag.endswith((":str", ":merge")):
                got = getattr(key, "value", "a list")
                yield f"{self.at(line, path)}: expected a name, got {got!s}; put it in quotes"
            elif key.value in lines and not merge:
                yield (
                    f"{self.at(line, (*path, key.value))}: expected each name once, "
                    f"got it in line {lines[key.value]} already"
                )
            lines[str(key.value)] = line
            yield from self._flaws(value, (*path, str(key.value)), above)

    def at(self, line: int, path: _Steps) -> str:
        """Write a place as an editor finds it, and the field."""
        return f"{self.name}:{line}: {dotted(path) or 'the file'}"

    def find(self, path: _Steps) -> tuple[int, _Steps, yaml.Node]:
        """Find the line, the true path and the node of a path of pydantic.

        Steps that the document does not have, such as the name of a kind, are passed over.
        """
        node, line, known = self.root, self.root.start_mark.line, []
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = [(k, v) for k, v in node.value if k.value == step]
                if found:
                    key, node = found[-1]
                    line = key.start_mark.line
                    known.append(step)
            elif isinstance(node, yaml.SequenceNode) and step in range(len(node.value)):
                node = node.value[step]
                line = node.start_mark.line
                known.append(step)
        return line + 1, tuple(known), node


def dotted(path: _Steps) -> str:
    """Write a path as one word: ``actions[0].low``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def read_file(model: type[_Model], path: Path) -> _Model:
    """Read ``model`` from the YAML file at ``path``; see ``RobotFile.load``."""
    path = path.expanduser()
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise SettingsError(
            nearest(path.name, siblings(path), what=f"file in {path.parent}")
        ) from error
    except OSError as error:
        raise SettingsError(f"{path}: expected a robot file, got: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise SettingsError(f"{path}: expected at most {MAX_BYTES} bytes, got more")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: expected text in UTF-8, got byte {error.start}") from error
    return read_text(model, text, str(path))


def read_text(model: type[_Model], text: str, name: str = "robot.yaml") -> _Model:
    """Read ``model`` from YAML; ``name`` is what errors call the file.

    Raises:
        SettingsError: with a line for every error: file, line, field, expected, got.
    """
    document = _Document(name, text)
    if document.errors:
        raise SettingsError(_joined(document.errors))
    if not isinstance(document.data, dict):
        raise SettingsError(f"{name}:1: expected fields such as robot: and observations:")
    if any(key.startswith("/") or key == "ros__parameters" for key in document.data):
        raise SettingsError(
            f"{name}:1: expected a robot file, got parameters of ROS; give this file as "
            "params_file, and the robot file as robot_file"
        )
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise SettingsError(_joined(_explain(document, model, error))) from error


def _joined(errors: Sequence[str]) -> str:
    listed = list(dict.fromkeys(errors))
    more = [f"and {len(listed) - MAX_ERRORS} more"] if len(listed) > MAX_ERRORS else []
    return "\n".join([*listed[:MAX_ERRORS], *more])


def _explain(document: _Document, model: type[BaseModel], error: ValidationError) -> list[str]:
    found: list[tuple[int, str]] = []
    all_details = error.errors(include_url=False)
    for details in all_details:
        if details["type"] == "too_short" and _wrong_within(details["loc"], all_details):
            continue  # said of a list whose elements are wrong
        cause = details.get("ctx", {}).get("error")
        misfits = cause.found if isinstance(cause, Misfits) else [cause]
        for misfit in misfits:
            own = misfit.path if isinstance(misfit, Misfit) else ()
            path = (*details["loc"], *own)
            line, known, node = document.find(path)
            if details["type"] in ("missing", "extra_forbidden") or own:
                known = (*known, *_unwritten(path, known))
            text = str(misfit) if isinstance(misfit, Misfit) else _text(model, details, node)
            found.append((line, f"{document.at(line, known)}: {text}"))
    return [text for _, text in sorted(found, key=lambda pair: pair[0])]


def _wrong_within(path: _Steps, errors: Sequence[Any]) -> bool:
    return any(len(e["loc"]) > len(path) and e["loc"][: len(path)] == path for e in errors)


def _unwritten(path: _Steps, known: _Steps) -> _Steps:
    """Give the last step of a path whose field is missing from the file."""
    return () if not path or (known and known[-1] == path[-1]) else path[-1:]


def _model_at(model: type[BaseModel], path: _Steps) -> type[BaseModel]:
    """Find the class of the entry at ``path``, whose kinds are steps of the path too."""
    tagged = {word: kind for kind in (*PARTS, *CHANNELS) for word in tags(kind)}
    for step in path:
        if step in tagged:
            model = tagged[str(step)]
            continue
        field = model.model_fields.get(str(step))
        inner = [kind for kind in _models_in(getattr(field, "annotation", None))]
        if len(inner) == 1:
            model = inner[0]
    return model


def tags(kind: type[BaseModel]) -> tuple[str, ...]:
    """List the words that an entry of this kind may have as its ``type``."""
    return tuple(getattr(kind.model_fields["type"].annotation, "__args__", ()))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def _fields(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _text(model: type[BaseModel], details: Any, node: yaml.Node) -> str:
    """Say of one error of pydantic what was expected and what came."""
    kind, path, context = details["type"], details["loc"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return nearest(str(path[-1]), _fields(_model_at(model, path[:-1])), what="field")
    if kind == "missing":
        owner = _model_at(model, path[:-1])
        named = {field.alias or name: field for name, field in owner.model_fields.items()}
        field = named.get(str(path[-1]))
        return f"is missing: {(field and field.description) or 'see the reference'}"
    if kind == "union_tag_not_found":
        example = "geometry_msgs/Twist" if path[0] == "actions" else "sensor_msgs/Image"
        return f"expected a field type that names the message, such as type: {example}"
    if kind == "union_tag_invalid":
        known = context["expected_tags"].replace("'", "").split(", ")
        return nearest(str(context["tag"]), known, what="type")
    message = details["msg"].removeprefix("Value error, ")
    if kind != "value_error":
        got = _got(node, details["input"])
        message = _plain(message)
        message = f"{message}, got {got}"
    return message + _yaml_hint(node)


def _plain(message: str) -> str:
    """Say in words of the file what pydantic says in words of Python."""
    for pattern, text in _WORDS:
        message = re.sub(pattern, text, message)
    return message


def _got(node: yaml.Node, value: Any) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(value) if isinstance(value, str) else str(node.value) or "nothing"
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) < 80 else text[:77] + "..."


def _yaml_hint(node: yaml.Node) -> str:
    """Explain a word that YAML takes for true or false."""
    if node.tag == _BOOL and node.value.lower() not in ("true", "false"):
        meant = "true" if node.value.lower() in ("yes", "on", "y") else "false"
        return f" (YAML reads {node.value} as {meant}; a word goes in quotes)"
    return ""
