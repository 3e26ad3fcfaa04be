"""Says what a chunk is: its key, what its steps look like, where they stand in their session.

A meta may come from anywhere.  Every number, name and count in it has a bound, so that whatever
is computed from it (file names, rows of the ledger, memory) has one too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from wm_core.contract.errors import ChunkRefused, ChunkVersionRefused, shown
from wm_core.contract.spec import Frozen, Spec
from wm_core.format import cdr, pictures
from wm_core.format.recording import Topic

CHUNK_VERSION = 1  #: of a chunk whose images are recorded as they are
PICTURES_VERSION = 2  #: of one with JPEG pictures, which older readers cannot take for others
METADATA = "wm_chunk"  #: name of the MCAP metadata record that holds the ChunkMeta
MAX_STEPS = 4096  #: of a chunk
MAX_FIRST_STEP = 2**31 - 1 - MAX_STEPS  #: a step's index in its session fits 31 bits
MAX_SEQ = 10**8 - 1
MAX_DROPPED = 2**53  #: steps; a count that every reader of JSON holds exactly
MAX_UNPACKED_BYTES = 2**28
MAX_META_BYTES = 2**20  #: of its JSON
MAX_TASK = 256  #: characters of the task's name

_ROBOT = re.compile(r"[a-z0-9_-]{1,64}")
_SESSION = re.compile(r"[0-9a-f]{32}")
_INPUT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_OVERHEAD_BYTES = 1024  #: per message, a generous bound of its headers and names


class ChunkKey(NamedTuple):
    """Names a chunk; the sequence number counts from 0 within a session."""

    robot: str
    session: str
    seq: int

    def check(self) -> ChunkKey:
        """Return the key; raises ``ChunkRefused`` unless it can name a file and nothing else."""
        if not _ROBOT.fullmatch(self.robot):
            raise ChunkRefused(f"robot {self.robot!r}: expected 1 to 64 of a-z, 0-9, _ and -")
        if not _SESSION.fullmatch(self.session):
            raise ChunkRefused(f"session {self.session!r}: expected 32 hexadecimal digits")
        if not 0 <= self.seq <= MAX_SEQ:
            got = self.seq if abs(self.seq) < 2**63 else "one of more than 18 digits"
            raise ChunkRefused(f"sequence number: expected 0 to {MAX_SEQ}, got {got}")
        return self


_Reason = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]  # why steps were dropped
_Count = Annotated[int, Field(ge=0, le=MAX_DROPPED)]
_Task = Annotated[str, AfterValidator(lambda text: shown(text, MAX_TASK))]  # it is printed


class ChunkMeta(Frozen):
    """Describes a chunk; it is read before the steps."""

    version: Literal[1, 2] = 1  #: ``PICTURES_VERSION`` where there are ``codecs``
    robot: str
    session: str  #: uuid4, 32 hexadecimal digits
    seq: int = Field(ge=0, le=MAX_SEQ)
    task: _Task = ""  #: free text; what cannot be printed becomes question marks
    spec: Spec
    first_step: int = Field(ge=0, le=MAX_FIRST_STEP)  #: index within the session of the first
    steps: int = Field(gt=0, le=MAX_STEPS)
    dropped: dict[_Reason, _Count] = Field(default_factory=dict, max_length=64)  #: steps by reason
    codecs: dict[str, pictures.Codec] = Field(default_factory=dict)  #: of lossy cameras, by name

    @model_validator(mode="after")
    def _fits(self) -> ChunkMeta:
        self.key.check()
        unfit = [k for k in self.spec.inputs if not _INPUT.fullmatch(k) or k in ("action", "step")]
        if unfit:
            raise ChunkRefused(f"inputs {unfit} cannot be topics; choose other names")
        if self.version != _version_of(self.codecs):
            raise ChunkRefused(f"version {self.version} does not fit the codecs {self.codecs}")
        for name in self.codecs:
            image = self.spec.images.get(name)
            if image is None or not pictures.can_be_jpeg(image):
                raise ChunkRefused(f"{name!r} is no camera whose images can be JPEG pictures")
        if self.unpacked_bytes > MAX_UNPACKED_BYTES:
            raise ChunkRefused(
                f"{self.steps} steps of this spec unpack to {self.unpacked_bytes} bytes, "
                f"more than {MAX_UNPACKED_BYTES}; make shorter chunks"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_empty_codecs(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``codecs`` out where there are none: a lossless chunk keeps its bytes."""
        said: dict[str, Any] = handler(self)
        if not self.codecs:
            said.pop("codecs", None)
        return said

    def with_codecs(self, codecs: pictures.Codecs) -> ChunkMeta:
        """Describe the same chunk with the images of some cameras as JPEG pictures."""
        said = {"codecs": dict(codecs), "version": _version_of(codecs)}
        return ChunkMeta.model_validate(self.model_copy(update=said).model_dump())

    @property
    def key(self) -> ChunkKey:
        return ChunkKey(self.robot, self.session, self.seq)

    @property
    def topics(self) -> list[Topic]:
        """List the topics of a chunk, in the order of their messages within a step."""
        return [
            *(image_topic(k, self.codecs) for k in self.spec.images),
            *(Topic(f"/{k}", cdr.JOINT_STATE) for k in self.spec.vectors),
            Topic("/action", cdr.JOINT_STATE),
            Topic("/step", cdr.JOINT_STATE),
        ]

    @property
    def unpacked_bytes(self) -> int:
        """Bound the bytes that the chunk may unpack to."""
        action = self.spec.action
        text = sum(8 + len(name.encode()) for name in action.names)
        per_step = sum(sensor.recorded_bytes for sensor in self.spec.inputs.values())
        topics = len(self.spec.inputs) + 2
        per_step += 2 * 8 * action.size + text + _OVERHEAD_BYTES * topics
        return self.steps * per_step + 8 * _OVERHEAD_BYTES * topics

    @classmethod
    def parse(cls, text: str) -> ChunkMeta:
        """Read the meta in ``text`` (JSON).

        Raises:
            ChunkVersionRefused: where it states a version that is not known.
            ChunkRefused: where it does not fit.
        """
        if len(text) > MAX_META_BYTES:
            raise ChunkRefused(f"chunk's meta of {len(text)} characters; at most {MAX_META_BYTES}")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            reason = f"chunk's meta does not fit: {_first(error)}"
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ChunkRefused(f"chunk's meta is no JSON: {error}") from None
        version = fields.get("version") if isinstance(fields, dict) else None
        if version not in (CHUNK_VERSION, PICTURES_VERSION):
            raise ChunkVersionRefused(
                f"expected a chunk of version {CHUNK_VERSION} or {PICTURES_VERSION}, "
                f"got {version!r:.40}"
            )
        raise ChunkRefused(reason)


def image_topic(name: str, codecs: pictures.Codecs) -> Topic:
    """Give the topic of a camera, which has another name where its messages have another type."""
    if name in codecs:
        return Topic(f"/{name}/compressed", cdr.COMPRESSED_IMAGE)
    return Topic(f"/{name}", cdr.IMAGE)


def _version_of(codecs: pictures.Codecs) -> int:
    return PICTURES_VERSION if codecs else CHUNK_VERSION


def _first(error: ValidationError) -> str:
    """Say what is wrong with the first of the fields that do not fit, and how many there are."""
    found = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, found["loc"]))
    more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where or 'meta'}: {found['msg']}, got {found['input']!r:.80}{more}"


def chunk_path(root: Path, key: ChunkKey) -> Path:
    """Locate the chunk of ``key`` below ``root``."""
    key.check()
    return root / key.robot / key.session / f"{key.seq:08d}.mcap"
