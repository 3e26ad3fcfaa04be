"""Settings of the trainer's service, and the names of what lies in its root folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from wm_core.contract.frozen import Frozen, ranged
from wm_core.store.examine import MAX_CHUNK_BYTES

STORE, POLICIES, SERVICE_FILE = "store", "policies", "service.json"


class ServeSettings(Frozen):
    """Says what the service keeps, where it listens and what it takes in."""

    root: Path = Field(description="Run folder; receives the folders store and policies.")
    objects: str = Field(
        "",
        description="Object store that takes the experience instead of the root folder, such as "
        "s3://bucket/robots; `wm store pull` brings it to a learner. Empty: none.",
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0: all, with TLS and tokens."
    )
    port: int = ranged(8765, 0, 65535, "TCP port to listen on; 0 picks a free one.")
    tokens: Path | None = Field(
        None, description="File of lines `robot sha256(token)`; None serves this machine only."
    )
    policy_keys: Path | None = Field(
        None, description="Folder of `wm keys make` that signs what robots are to run; None: none."
    )
    statement_s: float = ranged(
        86_400, 60, 31_000_000, "Seconds that robots take a signed statement for fresh."
    )
    tls_cert: Path | None = Field(
        None, description="PEM file of the service's certificate; None speaks plain HTTP."
    )
    tls_key: Path | None = Field(
        None, description="PEM file of its private key; None where --tls-cert has it too."
    )
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authority of robots' certificates, then demanded."
    )
    insecure: bool = Field(
        False, description="Listen to other machines without TLS, or without tokens."
    )
    max_chunk_bytes: int = Field(MAX_CHUNK_BYTES, gt=0, description="Bytes of the largest chunk.")
    min_free_bytes: int = Field(200_000_000, ge=0, description="Bytes of the disk to keep free.")
    spec: Path | None = Field(
        None, description="Spec (JSON) that chunks must have; None takes chunks of any spec."
    )
    scrub_bytes_per_s: float = Field(
        4e6, ge=0, description="Bytes per second at which stored files are re-hashed; 0: never."
    )
    max_uploads: int = Field(64, gt=0, description="Uploads at once; more must try again.")
    max_uploads_per_robot: int = Field(
        4, gt=0, description="Uploads of one robot at once; more must try again."
    )
    upload_memory_bytes: int = Field(
        256 << 20,
        gt=0,
        description="Bytes of all bodies in memory at once; one robot may hold an eighth of it.",
    )
    upload_s: float = Field(
        20.0,
        gt=0,
        description="Seconds that an upload may stall, or fall behind --min-bytes-per-s.",
    )
    min_bytes_per_s: float = ranged(
        1000.0, 1.0, 1e12, "Slowest rate in bytes per second at which an upload may come."
    )
    robot_chunks_per_s: float = ranged(
        500.0, 0, 1e6, "Most chunks per second of one robot, twice as many at once; 0: no bound."
    )
    robot_bytes_per_s: float = ranged(
        0.0, 0, 1e12, "Most bytes per second of one robot; 0: no bound."
    )
    robot_quota_bytes: int = Field(
        0, ge=0, description="Most bytes that are stored of one robot; 0: no bound."
    )
    max_connections: int = Field(
        1000, gt=0, description="Open connections in all; fewer where files would run out."
    )
    max_connections_per_peer: int = Field(
        64, gt=0, description="Open connections of one address; raise it behind a proxy."
    )
    header_s: float = Field(
        10.0, gt=0, description="Deadline in seconds for the TLS handshake and for the headers."
    )
    idle_s: float = Field(
        75.0, gt=0, description="Seconds after which a connection without a request is closed."
    )
    write_s: float = Field(
        30.0, gt=0, description="Seconds that a peer may not read what is sent to it."
    )
    max_header_bytes: int = Field(32768, gt=0, description="Bytes of the headers of one request.")
    drain_s: float = Field(
        5.0, gt=0, description="Seconds that running uploads get when the service ends."
    )
