"""Says what is wrong with a file that cannot be read."""

from __future__ import annotations

from pathlib import Path

from wm_core.contract.errors import RecordingError, shown

_LFS = b"version https://git-lfs"


def unreadable(path: Path, kind: str, error: object) -> RecordingError:
    """Make the error for a file that is no ``kind`` that can be read, such as "video"."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS))
    except OSError as missing:
        return RecordingError(f"{path}: cannot be read: {missing}")
    if start == _LFS:
        return RecordingError(
            f"{path}: is a pointer of Git LFS, not the file itself; bring it with git lfs pull"
        )
    return RecordingError(f"{path}: is no {kind} that can be read: {shown(error, 200)}")
