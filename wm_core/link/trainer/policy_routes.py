"""Answers robots that ask for policies: what to run, signed where there are keys, and its files.

What a channel's robots are to run is looked up ten times a second, however many wait for it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from wm_core.contract.card import Manifest
from wm_core.contract.errors import PolicyRefused, StoreError, WmError
from wm_core.contract.files import json_text, read_json, write_atomically
from wm_core.contract.policy_folder import CHANNEL_PATTERN, PolicyFolder, version_folder
from wm_core.contract.releases import Delivery, Release
from wm_core.contract.signing import Signed
from wm_core.link.trainer.access import Access, connection_of
from wm_core.link.trainer.answers import answer, is_sha256
from wm_core.link.trainer.channels import REPORTS_NAME, Channels
from wm_core.link.trainer.policy_keys import PolicyKeys
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.link.trainer.policy_watch import ChannelView, Watch

LIFETIME_S = 86_400.0  #: for which robots take a statement for fresh, unless told otherwise
_CHECK_S = 0.5  # how often a waiting request looks whether its peer is still there
_MAX_WAIT_S = 60.0
_MAX_REPORTS = 10_000
_WRITE_S = 2.0  # between two writes of the reports
_ROBOT = re.compile(r"[a-z0-9_-]{1,64}")
_RUNNING = re.compile(r"(\d{1,10})/([0-9a-f]{64})")


@dataclass(frozen=True)
class _Question:
    """Is what a robot asks, and what it has."""

    robot: str
    after: int
    have: str
    serial: int | None  # of the last statement that it took; None: it does not ask for one


class PolicyRoutes:
    """Answers the routes of policies.

    Args:
        policies: folder of all channels.
        access: decides who may ask.
        keys: that sign statements; None answers without signatures.
        lifetime_s: seconds for which robots take a statement for fresh.
    """

    def __init__(
        self,
        policies: Path,
        access: Access,
        keys: PolicyKeys | None = None,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        self.policies, self.access, self.keys = policies, access, keys
        self.channels, self._lifetime_s = Channels(policies), lifetime_s
        if keys is not None:
            keys.secret("channel")  # said at the start rather than to the first robot
        self.closing = False  #: waiting requests are answered at once
        self.running: dict[str, dict[str, object]] = _reports(policies)  #: by robot
        self._written_s, self._watches = 0.0, dict[str, Watch]()
        self.routes = [
            Route("/v1/policies/{channel}", self.policy),
            Route("/v1/blobs/{sha256}", self.blob),
        ]

    def versions(self) -> dict[str, int]:
        """Give the version that each channel's robots are to run, without damaged channels."""
        found: dict[str, int] = {}
        for name in self.channels.names():
            with contextlib.suppress(StoreError):
                current = self.channels.course(name).plan.current
                if current is not None:
                    found[name] = current.version
        return found

    async def policy(self, request: Request) -> Response:
        """Answer ``GET /v1/policies/{channel}``, once there is something new for this robot."""
        robot = request.query_params.get("robot", "")
        robot = robot if _ROBOT.fullmatch(robot) else ""
        refusal = self.access.refusal(request, robot or None)
        if refusal:
            return refusal
        channel = request.path_params["channel"]
        try:
            asked = _question(request, robot)
            wait_s = min(max(0.0, float(request.query_params.get("wait", 0))), _MAX_WAIT_S)
            self.channels.course(channel)
        except (StoreError, ValueError) as error:
            return answer("bad_request", str(error), status=400)
        if asked.serial is not None and self.keys is None:
            reason = "this trainer signs nothing: start `wm serve` with --policy-keys FOLDER"
            return answer("unsigned", reason, status=409)
        await self._report(request, robot)
        try:
            return await self._answer(request, asked, channel, time.monotonic() + wait_s)
        except (WmError, OSError) as error:
            return answer("unsigned", str(error), status=409)

    async def _answer(
        self, request: Request, asked: _Question, channel: str, deadline_s: float
    ) -> Response:
        """Answer as soon as there is something new, or the deadline or the peer is gone."""
        watch = self._watches.get(channel) or Watch(partial(self._see, channel))
        self._watches[channel] = watch
        connection = connection_of(request)
        try:
            view = await watch.now()
            while True:
                found = await self._found(view, asked, channel)
                if found is not None:
                    return Response(found, media_type="application/json")
                left_s = deadline_s - time.monotonic()
                if self.closing or connection.gone or left_s <= 0:
                    return Response(status_code=204)
                view = await watch.after(view, min(left_s, _CHECK_S))
        finally:
            if not watch.waiting:
                self._watches.pop(channel, None)

    async def _found(self, view: ChannelView, asked: _Question, channel: str) -> bytes | None:
        """Write what is new for who asked; None where nothing is."""
        release = view.plan.release_for(asked.robot)
        if asked.serial is not None:
            if view.serial == asked.serial:
                return None
            return await run_in_threadpool(self._delivery, view, release)
        if release is None or (not asked.have and release.version <= asked.after):
            return None
        manifest = await run_in_threadpool(self._manifest, release)
        if manifest is None or manifest.policy.sha256 == asked.have:
            return None
        return manifest.model_copy(update={"channel": channel}).model_dump_json().encode()

    def _delivery(self, view: ChannelView, release: Release | None) -> bytes:
        """Join keyring, statement and manifest; raises ``WmError`` where one is not signed."""
        assert view.keyring is not None
        assert view.statement is not None
        manifest = None
        if release is not None:
            folder = self._folder(release)
            content, endorsement = folder.read_signed()
            manifest = Signed(document=content.decode(), signatures=endorsement.signatures)
        delivery = Delivery(keyring=view.keyring, statement=view.statement, manifest=manifest)
        return delivery.model_dump_json().encode()

    def _manifest(self, release: Release) -> Manifest | None:
        try:
            return self._folder(release).read_manifest()
        except PolicyRefused:  # removed meanwhile
            return None

    def _folder(self, release: Release) -> PolicyFolder:
        return PolicyFolder(version_folder(self.policies / self.channels.line, release.version))

    def _see(self, channel: str) -> ChannelView:
        plan = self.channels.course(channel).plan
        if self.keys is None:
            return ChannelView(plan)
        known = self.channels.names()
        if channel not in known:
            if not known:
                raise StoreError("the trainer has published no policy yet")
            raise StoreError(f"no channel {channel!r}; there are: {', '.join(known)}")
        self.keys.refresh()
        signed = self.channels.statement(channel, self.keys, lifetime_s=self._lifetime_s)
        serial = json.loads(signed.document)["serial"]
        return ChannelView(plan, self.keys.signed, signed, serial)

    async def blob(self, request: Request) -> Response:
        """Answer ``GET /v1/blobs/{sha256}`` with a published file or a range of it."""
        refusal = self.access.refusal(request)
        if refusal:
            return refusal
        sha256 = request.path_params["sha256"]
        if is_sha256(sha256):
            path = await run_in_threadpool(self._blob, sha256)
            if path is not None:
                return FileResponse(path, media_type="application/octet-stream")
        reason = f"no published file has sha256 {sha256[:64]}; ask for the manifest again"
        return answer("no_file", reason, status=404)

    def _blob(self, sha256: str) -> Path | None:
        # beside the channels lie a lock and reports, and whatever a disk or a person put there
        names = sorted(path.name for path in self.policies.glob("*"))
        channels = (name for name in names if re.fullmatch(CHANNEL_PATTERN, name))
        found = (PolicyRepository(self.policies, name).blob(sha256) for name in channels)
        return next((path for path in found if path is not None), None)

    async def _report(self, request: Request, robot: str) -> None:
        """Keep which version a robot says that it runs."""
        match = _RUNNING.fullmatch(request.headers.get("wm-policy", ""))
        known = robot in self.running or len(self.running) < _MAX_REPORTS
        if not robot or match is None or not known:
            return
        said = {"version": int(match[1]), "sha256": match[2], "seen_s": round(time.time())}
        self.running[robot] = said
        if time.monotonic() - self._written_s > _WRITE_S:
            self._written_s = time.monotonic()
            text = json_text(self.running, indent=1).encode()
            with contextlib.suppress(OSError):
                await run_in_threadpool(write_atomically, self.policies / REPORTS_NAME, text)


def _question(request: Request, robot: str) -> _Question:
    """Read what is asked; raises ``ValueError`` for what is no number."""
    values = request.query_params
    serial = int(values["serial"][:20]) if "serial" in values else None
    after = int(values.get("after", "-1")[:20])
    return _Question(robot, after, values.get("have", ""), serial)


def _reports(policies: Path) -> dict[str, dict[str, object]]:
    """Read what robots said before the last stop."""
    found = read_json(policies / REPORTS_NAME)
    return {k: v for k, v in found.items() if _ROBOT.fullmatch(k) and isinstance(v, dict)}
