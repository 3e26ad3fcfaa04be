"""Answers the routes of episodes: a list, and each one picture by picture with the dream beside.

Everything is drawn here and works without a script; the script turns the pages.  The first dream
that is asked for loads the run's newest checkpoint, and torch with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wm_core.contract.errors import StoreError
from wm_core.library.replayed import Replay, Replays
from wm_core.page.replay_pages import dream_parts, episode_page, episodes_page, step_parts
from wm_core.page.wording import note

MOST_LISTED = 200  #: newest episodes in the list
_AT_ONCE = 2  #: answers that are made at once: the threads are those of the whole service
_MOST_WAITING = 16  #: that wait for their turn; more must ask again
_AGAIN_S = 2
_ONE = "/ui/episodes/{robot}/{session}/{number:int}"

_Refusal = Callable[[Request], str]
_Refused = Callable[[Request, str], Response]


class ReplayRoutes:
    """Answers browsers that look at episodes.

    Args:
        run: the run folder.
        refusal: says why a browser may not look; empty where it may.
        refused: makes the answer to one that may not.
        headers: of every answer.
    """

    def __init__(
        self, run: Path, refusal: _Refusal, refused: _Refused, headers: Mapping[str, str]
    ) -> None:
        self._refusal, self._refused = refusal, refused
        self._headers = dict(headers)
        self._replays = Replays(run)
        self._turn, self._asking = asyncio.Semaphore(_AT_ONCE), 0
        self.routes = [
            Route("/ui/episodes", self._answer(self._list)),
            Route(_ONE, self._answer(self._episode)),
            Route(_ONE + "/frame/{step:int}", self._answer(self._frame)),
            Route(_ONE + "/dream/{step:int}", self._answer(self._dream)),
            Route(_ONE + "/step/{step:int}", self._answer(self._step)),
            Route(_ONE + "/dreamt/{step:int}", self._answer(self._dreamt)),
        ]

    def _answer(self, make: Callable[[Request], Response]) -> Any:
        async def answer(request: Request) -> Response:
            why = self._refusal(request)
            if why:
                return self._refused(request, why)
            if self._asking >= _AT_ONCE + _MOST_WAITING:
                busy = "Many others look at episodes just now: load this again in a few seconds."
                response = self._html(note(busy, "warn"), 503)
                response.headers["Retry-After"] = str(_AGAIN_S)
                return response
            self._asking += 1
            try:
                async with self._turn:
                    return await run_in_threadpool(make, request)
            except StoreError as error:
                return self._html(note(str(error), "bad"), 404)
            finally:
                self._asking -= 1

        return answer

    def _list(self, request: Request) -> Response:
        return self._html(episodes_page(self._replays.newest(MOST_LISTED)))

    def _episode(self, request: Request) -> Response:
        replay, step, camera = self._asked(request)
        return self._html(episode_page(replay, step, camera))

    def _step(self, request: Request) -> Response:
        replay, step, _ = self._asked(request)
        return self._html(step_parts(replay, step))

    def _frame(self, request: Request) -> Response:
        replay, step, camera = self._asked(request)
        return self._png(self._replays.frame(replay, step, camera))

    def _dream(self, request: Request) -> Response:
        replay, step, camera = self._asked(request)
        png = self._replays.dream_frame(replay, step, camera)
        if png is None:
            raise StoreError("this model draws no pictures")
        return self._png(png)

    def _dreamt(self, request: Request) -> Response:
        replay, step, camera = self._asked(request)
        why = self._replays.why_no_dream(replay)
        if why:
            return self._html(note(why))
        return self._html(dream_parts(self._replays.dream_numbers(replay, step, camera), step))

    def _asked(self, request: Request) -> tuple[Replay, int, str]:
        """Find the episode, step and camera that a browser asks for."""
        place, more = request.path_params, request.query_params
        replay = self._replays.episode(place["robot"], place["session"], place["number"])
        step = place.get("step", more.get("step", "0"))
        try:
            step = int(step)
        except ValueError:
            raise StoreError("expected a step as a whole number") from None
        if not 0 <= step < replay.episode.steps:
            raise StoreError(f"expected a step from 0 to {replay.episode.steps - 1}, got {step}")
        cameras = list(replay.spec.images)
        camera = more.get("camera", "")
        return replay, step, camera if camera in cameras else next(iter(cameras), "")

    def _html(self, text: str, status: int = 200) -> Response:
        return Response(text, status, headers=self._headers, media_type="text/html")

    def _png(self, data: bytes) -> Response:
        return Response(data, headers=self._headers, media_type="image/png")
