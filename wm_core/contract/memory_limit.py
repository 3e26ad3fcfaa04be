"""Bounds the memory of what a policy's file makes the runtime do.

A file of a few bytes can ask for a tensor of any size.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wm_core.contract.errors import PolicyRefused, PolicyUnready

try:
    import resource
except ImportError:  # a system without it cannot bound a process
    resource = None  # type: ignore[assignment]

_STATM = Path("/proc/self/statm")
#: how runtime, interpreter and numpy say that there is no memory
_WITHOUT_MEMORY = re.compile(r"alloc|MemoryError|memory is too small", re.IGNORECASE)
_LOCK = threading.Lock()
_BYTES = 1 << 30  #: by which a process may grow while it runs an unproven policy ...
_FACTOR = 8  #: ... and this many times the file


@contextmanager
def bounded_memory(file_bytes: int) -> Iterator[None]:
    """Let the process grow by a multiple of ``file_bytes`` meanwhile, where that can be bounded.

    What asks for more gets an error instead; one thread at a time.
    """
    if resource is None or not _STATM.exists():
        yield
        return
    with _LOCK:
        now = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = now + _BYTES + _FACTOR * file_bytes
        bounds = [b for b in (wanted, soft, hard) if b != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def unready_without_memory() -> Iterator[None]:
    """Raise ``PolicyUnready`` where a policy is refused because memory is short just now.

    What a policy may ask for is bounded by its file, so that this is the machine's fault.
    """
    try:
        yield
    except MemoryError as error:
        raise PolicyUnready("this machine's memory is too small just now") from error
    except PolicyRefused as error:
        if _WITHOUT_MEMORY.search(str(error)):
            raise PolicyUnready(str(error)) from error
        raise
