"""Settings from a file: what a run saved, or YAML or JSON that a person wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.files import siblings
from wm_core.library.resume import OWN_NAMES
from wm_core.library.run_folder import SETTINGS_NAME

#: what of a run's settings is about the run itself, and not taken over by another one
_OF_THE_RUN = ("about", "run", "resume")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")  # a word in YAML 1.1


def read_settings_file(path: Path) -> dict[str, Any]:
    """Read nested settings, as ``with_changes`` takes them.

    Names may be dotted, and written with dashes as on the command line.

    Args:
        path: a YAML or JSON file, or a run folder, of which the settings are taken.

    Raises:
        SettingsError: where it does not exist (naming the nearest) or holds no settings.
    """
    if not path.exists():
        raise SettingsError(f"--config: {nearest(path.name, siblings(path), what='file')}")
    file = path / SETTINGS_NAME if path.is_dir() else path
    try:
        text = file.read_text()
        values = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise SettingsError(
            f"--config {path}: expected a settings file or the folder of a run: {error.strerror}"
        ) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        kind = "JSON" if file.suffix == ".json" else "YAML"
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(f"--config {file}: expected {kind}, got: {reason}") from error
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise SettingsError(
            f"--config {file}: expected settings by name, such as task: seek, got "
            f"{type(values).__name__}"
        )
    return {k: v for k, v in _named(values).items() if k not in _OF_THE_RUN}


def _named(values: Mapping[Any, Any]) -> dict[str, Any]:
    """The settings under their Python names, with numbers as numbers."""
    named = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        own = name.rpartition(".")[2] in OWN_NAMES
        named[name] = _named(value) if isinstance(value, Mapping) and not own else _number(value)
    return named


def _number(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return value
