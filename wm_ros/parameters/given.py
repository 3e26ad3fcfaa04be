"""Checks the values that parameters are given, and says where a wrong one stands; no ROS.

A whole number is taken where a number with a decimal point is wanted: YAML tells ``1`` from
``1.0``, people do not.  Everything else of the wrong kind is refused by one line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_core.contract.errors import SettingsError, nearest

Value = bool | int | float | str | list[str] | list[float]

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_YAML_TRUTH = "YAML reads on, off, yes, no, true and false as true or false"
_MOST_READ = 1_000_000  #: bytes of a parameter file that are searched for a name


@dataclass(frozen=True, slots=True)
class Param:
    """Describes one ROS parameter."""

    name: str
    default: Value
    text: str
    low: float | None = None  #: with ``high`` the range of a number, both included
    high: float | None = None
    choices: tuple[str, ...] = ()  #: that the word, or each word of a list, is one of
    live: bool = False  #: may change while the node runs

    def fitted(self, value: Any) -> Value:
        """Return ``value`` in the type of this parameter.

        Raises:
            SettingsError: for another type, a number out of range, or a word that is no choice.
        """
        if isinstance(self.default, list):
            found = self._listed(value)
        else:
            found = self._single(value, type(self.default))
        for word in found if isinstance(found, list) else [found]:
            if self.choices and word not in self.choices:
                raise SettingsError(nearest(str(word), self.choices, what=self.name))
        return found

    def _single(self, value: Any, kind: type) -> Any:
        found: Any = float(value) if kind is float and type(value) is int else value
        fits = type(found) is kind
        if fits and self.low is not None and self.high is not None:
            fits = self.low <= found <= self.high
        if not fits:
            raise SettingsError(self._refusal(_WORDS[kind] + self._range(), value))
        return found

    def _listed(self, value: Any) -> Any:
        if isinstance(self.default, list) and {type(v) for v in self.default} == {int}:
            return self._listed_whole(value)
        numbers = isinstance(self.default, list) and any(
            isinstance(v, float) for v in self.default
        )
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            wanted = "numbers, as in [0.5, 1.0]" if numbers else "words, as in [a, b]"
            raise SettingsError(self._refusal(f"a list of {wanted}", value))
        words = list(value)
        if numbers:
            if not all(type(number) in (int, float) for number in words):
                raise SettingsError(self._refusal("a list of numbers, as in [0.5, 1.0]", words))
            return [float(number) for number in words]
        if not all(isinstance(word, str) for word in words):
            raise SettingsError(self._refusal("a list of words, as in [a, b]", words))
        return words

    def _listed_whole(self, value: Any) -> list[int]:
        listed = hasattr(value, "__iter__") and not isinstance(value, (str, bytes))
        if not listed or not all(isinstance(n, int) and type(n) is not bool for n in value):
            got = list(value) if listed else value
            raise SettingsError(self._refusal("a list of whole numbers, as in [0, 1]", got))
        return [int(number) for number in value]

    def _range(self) -> str:
        return "" if self.low is None else f" from {self.low:g} to {self.high:g}"

    def _refusal(self, expected: str, value: Any) -> str:
        """Say what was expected and what came; and what YAML made of what was written."""
        got = repr(value).lower() if isinstance(value, bool) else repr(value)
        text = f"parameter {self.name!r}: expected {expected}, got {got}"
        wants_text = isinstance(self.default, (str, list))
        if wants_text and isinstance(value, bool):
            return f"{text} ({_YAML_TRUTH}: write it in quotes)"
        if isinstance(self.default, str) and isinstance(value, (int, float)):
            return f"{text}; write it in quotes: '{value}'"
        return text


def where(name: str, argv: Sequence[str]) -> str:
    """Say where the value of the parameter ``name`` comes from: the last place that names it.

    Args:
        name: with dots, such as ``upload.bytes_per_s``.
        argv: command line of the process.
    """
    for i in range(len(argv) - 1, 0, -1):
        if argv[i - 1] in ("-p", "--param") and _assigns(argv[i], name):
            return "on the command line"
        if argv[i - 1] == "--params-file":
            line = _line_of(Path(argv[i]), name)
            if line and Path(argv[i]).name.startswith("launch_params_"):
                return "given at launch"
            if line:
                return f"in {argv[i]}, line {line}"
    return ""


def unused_files(argv: Sequence[str], node: str) -> list[str]:
    """Say which parameter files have sections, and none for this node: ROS passes over them.

    Args:
        argv: command line of the process.
        node: its full name, such as ``/robot1/policy``.
    """
    files = [argv[i] for i in range(1, len(argv)) if argv[i - 1] == "--params-file"]
    found = []
    for file in files:
        sections = _sections(Path(file))
        if sections and not any(_matches(section, node) for section in sections):
            found.append(
                f"{file} has parameters for {', '.join(sections)} and none for {node}, so nothing "
                f"in it is used: put them below '/**:' or '{node}:'"
            )
    return found


def _sections(path: Path) -> list[str]:
    """List the names of nodes in a parameter file; none where it cannot be read."""
    try:
        import yaml

        tree = yaml.safe_load(path.read_bytes()[:_MOST_READ])
    except (ImportError, OSError, ValueError, yaml.YAMLError):
        return []
    found: list[str] = []

    def walk(entry: Any, name: str) -> None:
        for key, value in entry.items() if isinstance(entry, dict) else ():
            if key == "ros__parameters":
                found.append(name)
            else:
                walk(value, f"{name}/{str(key).strip('/')}")

    walk(tree, "")
    return found


def _matches(section: str, node: str) -> bool:
    pattern = re.escape(section).replace(r"/\*\*", r"(/.*)?").replace(r"\*", r"[^/]*")
    return re.fullmatch(pattern, node) is not None


def _assigns(rule: str, name: str) -> bool:
    return rule.partition(":=")[0].rpartition(":")[2] == name


def _line_of(path: Path, name: str) -> int:
    """Find the last line of a YAML file that gives the last part of ``name``; 0 for none."""
    try:
        text = path.read_bytes()[:_MOST_READ].decode(errors="replace")
    except OSError:
        return 0
    for key in (name, name.rpartition(".")[2]):
        pattern = re.compile(rf"(?:^|[\s{{,])['\"]?{re.escape(key)}['\"]?\s*:")
        lines = [n for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
        if lines:
            return lines[-1]
    return 0


def fit_all(given: Mapping[str, Any], params: Mapping[str, Param], argv: Sequence[str]) -> dict:
    """Fit each value of ``given`` to the parameter of its name; unknown names are left out.

    Raises:
        SettingsError: naming every value that does not fit, and where it stands.
    """
    found, wrong = {}, []
    for name, value in given.items():
        if name not in params:
            continue
        try:
            found[name] = params[name].fitted(value)
        except SettingsError as error:
            place = where(name, argv)
            wrong.append(f"{error} ({place})" if place else str(error))
    if wrong:
        raise SettingsError("; ".join(wrong))
    return found
