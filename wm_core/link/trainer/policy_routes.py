"""Answers robots that ask for policies: the newest manifest, and the files that it names."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from wm_core.contract.errors import StoreError
from wm_core.contract.policy_folder import LATEST_NAME
from wm_core.link.trainer.access import Access
from wm_core.link.trainer.answers import answer, is_sha256
from wm_core.link.trainer.policy_repository import PolicyRepository

_LOOK_S = 0.1  # how often a waiting request looks for a new version
_MAX_WAIT_S = 60.0


class PolicyRoutes:
    """Answers the routes of policies.

    Args:
        policies: folder of all channels.
        access: decides who may ask.
    """

    def __init__(self, policies: Path, access: Access) -> None:
        self.policies, self.access = policies, access
        self.closing = False  #: waiting requests are answered at once
        self.routes = [
            Route("/v1/policies/{channel}", self.policy),
            Route("/v1/blobs/{sha256}", self.blob),
        ]

    def versions(self) -> dict[str, int]:
        """Give the newest version of each channel."""
        return {
            path.parent.name: json.loads(path.read_bytes())["version"]
            for path in self.policies.glob(f"*/{LATEST_NAME}")
        }

    async def policy(self, request: Request) -> Response:
        """Answer ``GET /v1/policies/{channel}`` with the latest manifest, once it is a new one."""
        refusal = self.access.refusal(request)
        if refusal:
            return refusal
        try:
            repository = PolicyRepository(self.policies, request.path_params["channel"])
            after = int(request.query_params.get("after", "-1")[:20])
            wait_s = min(max(0.0, float(request.query_params.get("wait", 0))), _MAX_WAIT_S)
        except (StoreError, ValueError) as error:
            return answer("bad_request", str(error), status=400)
        have = request.query_params.get("have", "")
        deadline_s = time.monotonic() + wait_s
        looked_ns = -1
        while True:
            changed_ns = _changed_ns(self.policies / repository.channel / LATEST_NAME)
            if changed_ns != looked_ns:
                looked_ns, manifest = changed_ns, repository.latest()
                if manifest and (
                    manifest.policy.sha256 != have if have else manifest.version > after
                ):
                    return Response(manifest.model_dump_json(), media_type="application/json")
            if self.closing or time.monotonic() >= deadline_s:
                return Response(status_code=204)
            await asyncio.sleep(_LOOK_S)

    async def blob(self, request: Request) -> Response:
        """Answer ``GET /v1/blobs/{sha256}`` with a published file or a range of it."""
        refusal = self.access.refusal(request)
        if refusal:
            return refusal
        sha256 = request.path_params["sha256"]
        if is_sha256(sha256):
            for home in sorted(self.policies.glob("*/")):
                path = PolicyRepository(self.policies, home.name).blob(sha256)
                if path is not None:
                    return FileResponse(path, media_type="application/octet-stream")
        reason = f"no published file has sha256 {sha256[:64]}; ask for the manifest again"
        return answer("no_file", reason, status=404)


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
