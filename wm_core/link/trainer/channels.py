"""Decides which release each channel's robots run: the course of a channel, kept in a file.

Learners publish versions into the line ``main``, and its channel of that name follows the newest.
Other channels, such as ``stable``, name versions of the line and have no files of their own.  A
course is changed under a lock and replaced in one piece; a version that it names is not pruned.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from wm_core.contract.errors import PolicyRefused, StoreError
from wm_core.contract.files import make_folder, write_durably
from wm_core.contract.policy_folder import (
    CHANNEL_PATTERN,
    PolicyFolder,
    version_folder,
    versions_in,
)
from wm_core.contract.releases import MAX_SERIAL, Plan, Release, Rollout, Statement
from wm_core.contract.signing import Document, Signed, seal
from wm_core.link.trainer.policy_keys import PolicyKeys

LINE = "main"  #: into which learners publish
PLAN_NAME, STATEMENT_NAME, _LOCK_NAME = "plan.json", "statement.json", ".plans.lock"
REPORTS_NAME = "robots.json"  #: which robot runs what, as they say
_HISTORY = 20


class Course(Document):
    """Says what a channel's robots run, and what they ran before."""

    course_version: Literal[1] = 1
    follow: bool = False  #: the newest version of the line is the current one
    plan: Plan = Plan()
    history: tuple[Release, ...] = Field((), max_length=_HISTORY)  #: earlier ones, oldest first

    def releases(self) -> list[Release]:
        """List what the channel may still send robots to."""
        plan = self.plan
        found = [plan.current, plan.rollout.release if plan.rollout else None]
        return [r for r in (*found, *plan.pins.values(), *self.history[-1:]) if r is not None]


class Channels:
    """Reads and changes the courses of all channels of a trainer.

    Args:
        root: folder of the policies, such as ``runs/x/policies``.
        line: into which versions are published.
    """

    def __init__(self, root: Path, line: str = LINE) -> None:
        self.root, self.line = Path(root), line

    def names(self) -> list[str]:
        """List the channels that there are; a copy like ``stable.bak`` is none."""
        found = {path.parent.name for path in self.root.glob(f"*/{PLAN_NAME}")}
        found = {name for name in found if re.fullmatch(CHANNEL_PATTERN, name)}
        return sorted({*found, *([self.line] if (self.root / self.line).is_dir() else [])})

    def course(self, channel: str) -> Course:
        """Read the course of a channel; the line's own follows the newest until told otherwise.

        Raises:
            StoreError: where its file is damaged.
        """
        if not re.fullmatch(CHANNEL_PATTERN, channel):
            raise StoreError(f"expected a channel like {CHANNEL_PATTERN}, got {channel!r}")
        try:
            text = (self.root / channel / PLAN_NAME).read_bytes()
        except OSError:
            course = Course(follow=channel == self.line)
        else:
            try:
                course = Course.parse(text)
            except PolicyRefused as error:
                raise StoreError(f"{self.root / channel / PLAN_NAME}: {error}") from error
        if not course.follow:
            return course
        return course.model_copy(
            update={"plan": course.plan.model_copy(update={"current": self.newest()})}
        )

    def newest(self) -> Release | None:
        """Give the newest version of the line; None before the first."""
        for version in reversed(versions_in(self.root / self.line)):
            with contextlib.suppress(StoreError):
                return self.release(version)
        return None

    def release(self, version: int) -> Release:
        """Name a version of the line by the hash of its manifest.

        Raises:
            StoreError: where it is not there, with those that are.
        """
        folder = PolicyFolder(version_folder(self.root / self.line, version))
        try:
            content = folder.manifest.read_bytes()
        except OSError as error:
            there = ", ".join(map(str, versions_in(self.root / self.line))) or "none"
            raise StoreError(
                f"version {version} is not in {self.root / self.line}; there are: {there}"
            ) from error
        return Release(manifest=hashlib.sha256(content).hexdigest(), version=version)

    def promote(self, channel: str, version: int) -> Course:
        """Make ``version`` the current one of ``channel``; a roll-out of it ends."""
        release = self.release(version)

        def change(course: Course) -> Course:
            plan = course.plan
            over = plan.rollout is not None and plan.rollout.release == release
            plan = plan.model_copy(
                update={"current": release, "rollout": None if over else plan.rollout}
            )
            return _replaced(course, plan, release)

        return self._change(channel, change)

    def follow(self, channel: str) -> Course:
        """Let ``channel`` follow the newest version of the line."""
        return self._change(channel, lambda course: course.model_copy(update={"follow": True}))

    def roll_back(self, channel: str) -> Course:
        """Bring back what was current before; a roll-out ends, and the newest is not followed.

        Raises:
            StoreError: where nothing came before.
        """

        def change(course: Course) -> Course:
            plan, history = course.plan, course.history
            if plan.rollout is not None:
                return course.model_copy(
                    update={"plan": plan.model_copy(update={"rollout": None})}
                )
            earlier = [r for r in history if r != plan.current]
            if course.follow and plan.current is not None:
                older = [v for v in versions_in(self.root / self.line) if v < plan.current.version]
                earlier = [self.release(older[-1])] if older else []
            if not earlier:
                raise StoreError(f"channel {channel!r} has no release before the current one")
            plan = plan.model_copy(update={"current": earlier[-1]})
            kept = tuple(earlier[:-1])
            return course.model_copy(update={"plan": plan, "follow": False, "history": kept})

        return self._change(channel, change)

    def roll_out(
        self, channel: str, version: int, share: float, robots: tuple[str, ...]
    ) -> Course:
        """Give ``version`` to a share of the robots and to those that are named."""
        try:
            rollout = Rollout(release=self.release(version), share=share, robots=robots)
        except ValidationError as error:
            what = error.errors(include_input=False)[0]
            raise StoreError(f"roll-out: {what['loc'][0]}: {what['msg']}") from error
        return self._change(channel, lambda course: _with_plan(course, rollout=rollout))

    def pin(self, channel: str, robot: str, version: int | None) -> Course:
        """Hold ``robot`` at ``version``; None lets it go on with the others."""
        release = None if version is None else self.release(version)

        def change(course: Course) -> Course:
            pins = {name: r for name, r in course.plan.pins.items() if name != robot}
            return _with_plan(course, pins=pins if release is None else {**pins, robot: release})

        return self._change(channel, change)

    def named(self) -> set[int]:
        """List the versions that a channel may still send robots to."""
        return {r.version for name in self.names() for r in self.course(name).releases()}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from changing a course or removing versions."""
        make_folder(self.root)
        handle = os.open(self.root / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _change(self, channel: str, change: Callable[[Course], Course]) -> Course:
        with self.locked():
            course = change(self.course(channel))
            checked = Course.parse(course.model_dump_json())
            path = self.root / channel / PLAN_NAME
            write_durably(path, checked.model_dump_json(indent=1).encode() + b"\n")
            return checked

    def statement(self, channel: str, keys: PolicyKeys, *, lifetime_s: float) -> Signed:
        """Give the signed statement of a channel: a new one where the plan changed or it ages.

        It is on the disk before it is given, so that its serial number is never used again.

        Args:
            channel: whose plan is stated.
            keys: with the channel's secret key.
            lifetime_s: seconds for which robots take it for fresh; signed anew after an eighth.
        """
        plan, now_s = self.course(channel).plan, int(time.time())
        path, key = self.root / channel / STATEMENT_NAME, keys.secret("channel")
        serial = 0
        with contextlib.suppress(OSError, PolicyRefused):
            signed = Signed.parse(path.read_bytes())
            last = Statement.parse(signed.document)
            serial = last.serial
            ours = [s.key for s in signed.signatures] == [key.public]
            same = last.keyring == keys.keyring.number and all(
                getattr(last, name) == getattr(plan, name) for name in Plan.model_fields
            )
            if ours and same and 0 <= now_s - last.issued <= lifetime_s / 8:
                return signed
        statement = Statement(
            channel=channel,
            serial=min(max(serial + 1, now_s), MAX_SERIAL),
            keyring=keys.keyring.number,
            issued=now_s,
            expires=now_s + max(1, round(lifetime_s)),
            **{name: getattr(plan, name) for name in Plan.model_fields},
        )
        signed = seal("statement", statement.model_dump_json(), [key])
        write_durably(path, signed.model_dump_json().encode())
        return signed


def _with_plan(course: Course, **changes: object) -> Course:
    return course.model_copy(update={"plan": course.plan.model_copy(update=changes)})


def _replaced(course: Course, plan: Plan, release: Release) -> Course:
    """Take a new plan with the current ``release``, and remember the one before."""
    before = course.plan.current
    history = course.history
    if before is not None and before != release:
        history = (*history, before)[-_HISTORY:]
    return course.model_copy(update={"plan": plan, "follow": False, "history": history})
