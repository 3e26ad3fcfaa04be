"""Counts what the service does, as Prometheus reads it.

Robots are labels; beyond a thousand of them the further ones share one, so that nobody can make
the service remember names without end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MAX_ROBOTS = 1000
OTHERS = "(others)"  #: label of the robots beyond; no robot can be called so
_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

#: what is read when Prometheus asks: name -> (value by label, or one value)
Readings = dict[str, float | dict[str, float]]

#: readings by name: whether they only grow, their label, and what they are
_READ: dict[str, tuple[bool, str, str]] = {
    "wm_connections": (False, "", "Open connections"),
    "wm_connections_refused": (True, "", "Connections that found no room"),
    "wm_connections_cut": (True, "", "Connections without a token, closed to make room"),
    "wm_uploads": (False, "", "Chunks that are being received or stored"),
    "wm_upload_bytes": (False, "", "Bytes of bodies in memory"),
    "wm_backlog_chunks": (False, "", "Chunks that wait to be stored"),
    "wm_backlog_bytes": (False, "", "Bytes that wait to be stored"),
    "wm_commits": (True, "", "Commits of groups of chunks"),
    "wm_committed_chunks": (True, "", "Chunks in these commits"),
    "wm_stored_chunks": (False, "", "Chunks in the ledger"),
    "wm_stored_steps": (False, "", "Steps in the ledger"),
    "wm_stored_bytes": (False, "", "Bytes in the ledger"),
    "wm_quarantined_chunks": (False, "", "Chunks that were refused and kept"),
    "wm_quarantined_bytes": (False, "", "Bytes that were refused and kept"),
    "wm_disk_free_bytes": (False, "", "Free bytes of the store's disk"),
    "wm_live_robots": (False, "", "Robots that said of late how they are doing"),
    "wm_live_bytes": (False, "", "Bytes of what they said last"),
    "wm_live_reports": (True, "", "Live reports that were kept"),
    "wm_live_refused": (True, "", "Live reports that were refused"),
    "wm_ready": (False, "", "1 where chunks are taken in, else 0"),
    "wm_policy_version": (False, "channel", "Newest version of each channel"),
    "wm_robot_policy_version": (False, "robot", "Version that each robot says it runs"),
}


class Metrics:
    """Counts answers by robot and verdict, and reads the rest when it is asked.

    Args:
        read: gives the current readings; it may take milliseconds.
    """

    def __init__(self, read: Callable[[], Readings]) -> None:
        self.registry = CollectorRegistry()
        self._robots: set[str] = set()
        register = self.registry
        self._chunks = Counter(
            "wm_chunks", "Chunks answered", ["robot", "verdict"], registry=register
        )
        self._bytes = Counter("wm_chunk_bytes", "Bytes acknowledged", ["robot"], registry=register)
        self._arrival = Gauge(
            "wm_last_arrival_timestamp_seconds", "Last new chunk", ["robot"], registry=register
        )
        self._refused = Counter(
            "wm_refused", "Requests refused before their body", ["verdict"], registry=register
        )
        self._seconds = Histogram(
            "wm_acknowledgement_seconds",
            "From a chunk's headers to its acknowledgement",
            buckets=_BUCKETS_S,
            registry=register,
        )
        ProcessCollector(registry=register)
        self.registry.register(_Readings(read))

    def answered(self, robot: str, verdict: str, size: int, seconds: float) -> None:
        """Count the answer to a chunk of ``size`` bytes whose sender is known."""
        label = self._label(robot)
        self._chunks.labels(label, verdict).inc()
        if verdict in ("stored", "known"):
            self._seconds.observe(seconds)
            self._bytes.labels(label).inc(size)
        if verdict == "stored":
            self._arrival.labels(label).set(time.time())

    def refused(self, verdict: str) -> None:
        """Count a request that was refused before its body was read."""
        self._refused.labels(verdict).inc()

    def text(self) -> bytes:
        """Write everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def _label(self, robot: str) -> str:
        if robot not in self._robots:
            if len(self._robots) >= MAX_ROBOTS:
                return OTHERS
            self._robots.add(robot)
        return robot


class _Readings(Collector):
    """Turns readings into metrics."""

    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for name, value in self._read().items():
            grows, label, what = _READ[name]
            family = (CounterMetricFamily if grows else GaugeMetricFamily)(
                name, what, labels=[label] if label else []
            )
            for labelled, one in value.items() if isinstance(value, dict) else [("", value)]:
                family.add_metric([labelled] if label else [], one)
            yield family
