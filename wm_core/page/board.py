"""Joins what is known into one frame of the page, looked at once for everybody who watches.

While nobody watches nothing is read and nobody is asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from wm_core.page import panels
from wm_core.page.dream_panel import dream_age, understands
from wm_core.page.hearing import Listen, RobotsHeard
from wm_core.page.run_reader import RunReader, RunView
from wm_core.page.wording import note

T = TypeVar("T")
log = logging.getLogger(__name__)

LOOK_S = 0.2  #: between two looks at the robots
READ_S = 1.0  #: between two looks at the run folder
_FRESH_S = 0.1  # a frame of this age is given without another look


@dataclass(frozen=True)
class Frame:
    """Content of the page's elements at one moment, containers before what they contain."""

    html: dict[str, str] = field(default_factory=dict)  #: by the element's id
    pictures: dict[str, str] = field(default_factory=dict)  #: address by the image's id
    number: int = 0  #: grows with every look

    def since(self, before: Frame) -> Frame:
        """Keep what differs from ``before``; what is in a container that differs comes too."""
        new = {k for k, v in self.html.items() if before.html.get(k) != v}
        all_robots = "robots" in new

        def wanted(name: str) -> bool:
            return all_robots and name.startswith("robot-")

        html = {k: v for k, v in self.html.items() if k in new or wanted(k)}
        all_dreams = "understands" in html
        pictures = {
            k: v
            for k, v in self.pictures.items()
            if before.pictures.get(k) != v or wanted(k) or (all_dreams and k.startswith("dream-"))
        }
        return Frame(html, pictures, self.number)


class Board:
    """Looks while somebody watches, and wakes those who do.

    Args:
        reader: of the run folder.
        listen: gives what tells what the robots say, which may take up to a second.
        clock: gives seconds that only grow.
    """

    def __init__(
        self, reader: RunReader, listen: Listen, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.reader, self._listen, self._clock = reader, listen, clock
        self.frame = Frame()
        self.watching = 0  #: connections that wait for news
        self.closing = False
        self._run, self._heard = RunView(reader.root), RobotsHeard()
        self._read_s = self._looked_s = -math.inf
        self._rendered: dict[str, str] = {}
        self._error = ""
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._lock = asyncio.Lock()

    @property
    def run(self) -> RunView:
        """What the run folder said at the last look."""
        return self._run

    async def now(self) -> Frame:
        """Give a frame that is fresh."""
        async with self._lock:
            if self._clock() - self._looked_s > _FRESH_S and self._task is None:
                self.frame = await run_in_threadpool(self.look, self._listen())
        return self.frame

    async def after(self, number: int, wait_s: float) -> Frame:
        """Wait at most ``wait_s`` seconds for a frame that came after ``number``."""
        self.watching += 1
        try:
            if self._task is None:
                self._task = asyncio.create_task(self._look_on())
            if self.frame.number > number or self.closing:
                return self.frame
            if self._news is None:
                self._news = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._news], timeout=wait_s)
            return self.frame
        finally:
            self.watching -= 1

    def close(self) -> None:
        """Let everybody who waits go, in the event loop; a second call does nothing."""
        self.closing = True
        if self._news is not None:
            self._news.set_result(None)
            self._news = None

    async def _look_on(self) -> None:
        idle = 0
        try:
            while not self.closing and idle < 2 * READ_S / LOOK_S:
                idle = 0 if self.watching else idle + 1
                begin_s = time.monotonic()
                async with self._lock:
                    if self.watching:
                        self.frame = await run_in_threadpool(self.look, self._listen())
                if self._news is not None:
                    self._news.set_result(None)
                    self._news = None
                await asyncio.sleep(max(0.02, LOOK_S - (time.monotonic() - begin_s)))
        finally:
            self._task = None

    def look(self, hear: Callable[[], RobotsHeard]) -> Frame:
        """Ask and read once, and draw what changed; in a thread, one at a time."""
        self._heard = self._guarded(hear, RobotsHeard("asking it failed: see the log"))
        now_s = self._clock()
        if now_s - self._read_s >= READ_S:
            self._read_s = now_s
            before = self._run
            self._run = self._guarded(self.reader.look, before)
            self._draw_run()
        html, pictures = self._draw_robots()
        self._looked_s = self._clock()
        return Frame(html, pictures, self.frame.number + 1)

    def _draw_run(self) -> None:
        """Draw what only changes with the run folder."""
        run, heard = self._run, self._heard
        panel: dict[str, Callable[[], str]] = {
            "title": lambda: panels.title(run),
            "better": lambda: panels.better(run),
            "understands": lambda: understands(run),
            "lost": lambda: panels.lost(run, heard),
            "policies": lambda: panels.policies(run, heard),
            "learner": lambda: panels.learner(run),
            "losses": lambda: panels.losses(run),
            "counters": lambda: panels.robot_counters(heard),
        }
        sorry = note("This part could not be drawn: the log says why.", "bad")
        self._rendered = {name: self._guarded(draw, sorry) for name, draw in panel.items()}

    def _draw_robots(self) -> tuple[dict[str, str], dict[str, str]]:
        heard, run = self._heard, self._run
        html = {"links": panels.links(run, heard), "robots": panels.robots_frame(heard)}
        html["dream-age"] = dream_age(run)
        pictures = {f"dream-{k}": f"/ui/dream/{k}?{n}" for k, n in run.pictures.items()}
        for i, robot in enumerate(heard.robots):
            html[f"robot-{i}-state"] = panels.robot_state(robot)
            for j, jpeg in enumerate(robot.cameras.values()):
                pictures[f"robot-{i}-camera-{j}"] = f"data:image/jpeg;base64,{jpeg}"
        return {**self._rendered, **html}, pictures

    def _guarded(self, look: Callable[[], T], instead: T) -> T:
        """Look; what goes wrong is logged, and the page goes on with what it had."""
        try:
            return look()
        except Exception as error:
            if repr(error) != self._error:  # the same one would come five times a second
                self._error = repr(error)
                log.error("the page could not look: %r", error, exc_info=error)
            return instead
