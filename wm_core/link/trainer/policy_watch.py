"""Looks at what a channel's robots are to run, once for all that wait, and wakes them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from wm_core.contract.errors import WmError
from wm_core.contract.releases import Plan
from wm_core.contract.signing import Signed

log = logging.getLogger(__name__)

LOOK_S = 0.1  #: between two looks at a channel for which somebody waits


@dataclass(frozen=True)
class ChannelView:
    """Is what a channel's robots are to run, at one moment."""

    plan: Plan
    keyring: Signed | None = None
    statement: Signed | None = None
    serial: int = 0  #: of the statement; 0 where nothing is signed


class Watch:
    """Shares the looks at one channel among all requests that wait for a change.

    Args:
        see: looks once; it is called in a thread and may raise.
    """

    def __init__(self, see: Callable[[], ChannelView]) -> None:
        self._see = see
        self._view: ChannelView | None = None
        self._seen_s = -LOOK_S
        self._news: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.waiting = 0  #: requests that wait for a change

    async def now(self) -> ChannelView:
        """Give what holds now, at most ``LOOK_S`` old while somebody waits."""
        if self._view is None or time.monotonic() - self._seen_s > LOOK_S:
            await self._look()
        assert self._view is not None
        return self._view

    async def after(self, view: ChannelView, wait_s: float) -> ChannelView:
        """Wait at most ``wait_s`` seconds for something else than ``view``."""
        self.waiting += 1
        try:
            if self._view != view and self._view is not None:
                return self._view
            if self._task is None:
                self._task = asyncio.create_task(self._run())
            if self._news is None:
                self._news = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._news], timeout=wait_s)
            return self._view or view
        finally:
            self.waiting -= 1

    async def _run(self) -> None:
        try:
            while self.waiting:
                await asyncio.sleep(LOOK_S)
                before = self._view
                try:
                    await self._look()
                except (WmError, OSError) as error:  # who asks next is told
                    log.error("what robots are to run cannot be read: %s", error)
                    await asyncio.sleep(1.0)
                if self._view != before and self._news is not None:
                    self._news.set_result(None)
                    self._news = None
        finally:
            self._task = None

    async def _look(self) -> None:
        view = await run_in_threadpool(self._see)
        self._view, self._seen_s = view, time.monotonic()
