"""Gives the JSON schema of a robot file, with which editors complete and check it."""

from __future__ import annotations

from wm_core.contract.files import json_text
from wm_core.robot.robot_file import RobotFile

TITLE = "wm_ros robot file"


def schema_text() -> str:
    """Give the schema as JSON; the shipped ``robot.schema.json`` holds the same text."""
    schema = RobotFile.model_json_schema()
    schema = (
        {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": TITLE}
    )
    return json_text(schema, indent=1, ensure_ascii=False) + "\n"
