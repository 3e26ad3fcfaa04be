"""Holds what the doctor found, and prints it for people and programs; no ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from wm_core.contract.files import json_text

Level = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Says how one thing is, and what to do about it where it is not well."""

    area: str  #: such as camera or trainer
    level: Level
    text: str
    advice: str = ""


def ok(area: str, text: str) -> CheckResult:
    """Make a finding of something that is well."""
    return CheckResult(area, "OK", text)


def warn(area: str, text: str, advice: str) -> CheckResult:
    """Make a finding of something that may be meant, or may become a fault."""
    return CheckResult(area, "WARN", text, advice)


def fail(area: str, text: str, advice: str) -> CheckResult:
    """Make a finding of something with which the robot will not run."""
    return CheckResult(area, "FAIL", text, advice)


def as_text(findings: Sequence[CheckResult]) -> str:
    """Print one line for each finding, its advice below, and a line that sums up."""
    width = max((len(f.area) for f in findings), default=0)
    lines = []
    for f in findings:
        lines.append(f"{f.level:<4}  {f.area:<{width}}  {f.text}")
        if f.advice:
            lines.append(f"{'':<4}  {'':<{width}}  -> {f.advice}")
    counts = {level: sum(f.level == level for f in findings) for level in ("OK", "WARN", "FAIL")}
    verdict = "the robot can run" if not counts["FAIL"] else "mend what FAILs first"
    summed = ", ".join(f"{n} {level}" for level, n in counts.items())
    return "\n".join([*lines, f"{summed}: {verdict}", ""])


def as_json(findings: Sequence[CheckResult]) -> str:
    """Print one JSON object with every finding."""
    healthy = not any(f.level == "FAIL" for f in findings)
    return json_text({"healthy": healthy, "findings": [asdict(f) for f in findings]}) + "\n"
