"""Holds the settings of the uploader."""

from __future__ import annotations

from pydantic import Field

from wm_core.contract.frozen import ranged
from wm_core.link.robot.client import ConnectionSettings
from wm_core.link.robot.send_plan import SendOrder


class UploaderSettings(ConnectionSettings):
    """Sets deadlines and bounds of the uploader."""

    connections: int = ranged(2, 1, 4, "Chunks that are on their way to the trainer at once")
    order: SendOrder = Field(
        "oldest", description="Which of the chunks that wait for the trainer goes first"
    )
    denied_s: float = ranged(
        30.0, 0.001, 3600, "Seconds to wait after the trainer refused the token"
    )
    stuck_s: float = ranged(
        300.0, 0.001, 1e6, "Most seconds that a chunk waits whose sending fails again and again"
    )
    bytes_per_s: float = ranged(
        0.0, 0, 1e12, "Most bytes per second that all connections send together; 0: no bound"
    )
    keep_bytes: int = ranged(0, 0, 2**62, "Bytes of acknowledged chunks to keep, as a black box")
    keep_s: float = ranged(
        0.0, 0, 1e9, "Seconds for which acknowledged chunks are kept at most; 0: no such bound"
    )
    refused_bytes: int = ranged(
        200_000_000, 0, 2**62, "Bytes of chunks to keep that the trainer refused"
    )
