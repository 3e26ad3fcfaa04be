"""``python -m benchmarks.results``."""

import sys

import tyro

from benchmarks.results.command import main
from benchmarks.results.contest import Settings
from wm_core.contract.errors import SettingsError

try:
    sys.exit(main(tyro.cli(Settings, prog="python -m benchmarks.results")))
except SettingsError as error:
    sys.exit(f"results: {error}")
