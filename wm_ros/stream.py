"""Runs the robot's threads to disk and trainer: spool, uploader, policies, live; no ROS."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from wm_core.contract.inputs import CodecRule
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.contract.trust import Trust
from wm_core.format.chunk import ChunkKey
from wm_core.link.robot.access import read_token as read_token
from wm_core.link.robot.carrier import folder_trainer
from wm_core.link.robot.live import LiveSender, LiveSnapshot
from wm_core.link.robot.policy_client import PolicyClient, Running
from wm_core.link.robot.spool import Spool
from wm_core.link.robot.uploader import Uploader
from wm_ros.settings import StreamSettings


class Stream:
    """Takes steps to the trainer and brings its newest policy; works without a trainer too.

    Args:
        settings: where experience goes and policies come from.
        folder: of the node's files; the trainer's policies are kept there.
        trust: verifies the trainer's policies; None takes unsigned ones.
    """

    def __init__(self, settings: StreamSettings, folder: Path, trust: Trust | None = None) -> None:
        self.settings = settings
        self.running: Callable[[], Running | None] = lambda: None  #: which policy acts
        #: what is said of the robot to whoever watches it; with pictures if asked
        self.snapshot: Callable[[bool], LiveSnapshot | None] = lambda pictures: None
        self.rest_s: Callable[[], float] = lambda: 0.0  #: until the control thread rests
        self._spool_dir = Path(settings.spool_dir or folder / "spool").expanduser()
        self._spool: Spool | None = None
        self._begun: tuple[str, Spec] | None = None  # task and spec of the spool
        self._uploader: Uploader | None = None
        self._client: PolicyClient | None = None
        self._live: LiveSender | None = None
        if settings.record:  # refused now rather than when the first policy comes
            ChunkKey(settings.robot, session="0" * 32, seq=0).check()
        if url := settings.trainer_url:
            token, cache, s = read_token(settings.token_file), folder / "policies", settings
            if folder_trainer(url) is None:  # a folder takes experience and gives no policies
                self._client = PolicyClient(
                    url,
                    channel=s.channel,
                    cache=cache,
                    token=token,
                    settings=s.delivery,
                    access=s,
                    robot=s.robot,
                    trust=trust,
                    running=lambda: self.running(),
                )
            self._uploader = Uploader(
                self._spool_dir, url=url, token=token, settings=s.upload, access=s
            )
            if s.live.enabled and folder_trainer(url) is None:
                self._live = LiveSender(
                    url,
                    robot=s.robot,
                    snapshot=lambda pictures: self.snapshot(pictures),
                    token=token,
                    settings=s.live,
                    access=s,
                    cap=self._uploader.cap,
                    rest_s=lambda: self.rest_s(),
                )

    @property
    def session(self) -> str:
        """Name this recording; empty before it begins."""
        return "" if self._spool is None else self._spool.session

    @property
    def records(self) -> bool:
        """Tell whether steps are taken."""
        return self._spool is not None

    def latest(self) -> Path | None:
        """Find the trainer's newest policy in the cache; None while there is none."""
        return None if self._client is None else self._client.latest()

    def versions(self) -> list[Path]:
        """List the trainer's policies in the cache, the newest first."""
        return [] if self._client is None else self._client.versions()

    def room(self) -> tuple[int, int]:
        """Give the free bytes of the spool's disk, and the most that may wait there; 0: none."""
        if self._spool is None:
            return 0, 0
        return shutil.disk_usage(self._spool_dir).free, self.settings.spool.max_bytes

    def problem(self) -> str:
        """Say why there is no policy at all; empty where there is one."""
        if self._client is None:
            if self.settings.trainer_url:
                return "set policy_dir: a folder as trainer_url takes experience only"
            return "neither policy_dir nor trainer_url is set"
        if self._client.latest() is not None:
            return ""
        why = self._client.problem() or "none is published yet"
        return f"none came from {self.settings.trainer_url}: {why}"

    def begin(self, task: str, spec: Spec, codecs: Mapping[str, CodecRule] | None = None) -> None:
        """Begin a recording; called again, before the first step, begin one in its place.

        Args:
            task: what the robot is doing.
            spec: which every step must fit.
            codecs: how some cameras' images are recorded.
        """
        s = self.settings
        if not s.record or self._begun == (task, spec):
            return
        if self._spool is not None:
            spool, self._spool, self._begun = self._spool, None, None
            spool.close()
        self._spool = Spool(
            self._spool_dir,
            robot=s.robot,
            task=task,
            spec=spec,
            settings=s.spool,
            codecs=codecs,
        )
        self._begun = task, spec

    def put(self, step: Step) -> bool:
        """Take one step; False where it was dropped."""
        return self._spool is not None and self._spool.put(step)

    def pressure(self) -> Literal["ok", "pause"]:
        """Say whether exploration should pause, because the spool is nearly full."""
        return "ok" if self._spool is None else self._spool.pressure()

    def counters(self) -> dict[str, int | float | str]:
        """Give the counters of the threads, each with a prefix."""
        parts = (
            ("spool", self._spool),
            ("uploader", self._uploader),
            ("policies", self._client),
            ("live", self._live),
        )
        return {
            f"{prefix}_{key}": value
            for prefix, part in parts
            if part is not None
            for key, value in part.counters().items()
        }

    def close(self) -> None:
        """Seal and upload what is open, then end the threads; may be called twice."""
        if self._live is not None:
            self._live.close()
        if self._spool is not None:
            self._spool.close()
        if self._uploader is not None:
            self._uploader.drain(timeout_s=2.0)
            self._uploader.close()
        if self._client is not None:
            self._client.close()
