"""Runs ONNX models by the runtime's C library, which never holds the interpreter's lock.

The Python binding of onnxruntime keeps that lock while it opens a session (for 100 ms and more
with a large policy, before 1.31), and the control loop stands still.  The wheel holds the same
runtime as a C library; its function table only ever grows at its end, so the places below hold
for every version that has them.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.card import TensorInfo

_API_VERSION = 12  #: the oldest table that has every function used here
_QUIET = 4  #: severity: what goes wrong is returned, not logged
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64"}
_DTYPES |= {9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64"}

#: place in the table and types of the arguments; a status is returned unless said otherwise
_FUNCTIONS: dict[str, tuple[int, list[Any]]] = {
    "CreateEnv": (3, [c_int, c_char_p, c_void_p]),
    "CreateSessionFromArray": (8, [c_void_p, c_void_p, c_size_t, c_void_p, c_void_p]),
    "Run": (9, [c_void_p] * 4 + [c_size_t, c_void_p, c_size_t, c_void_p]),
    "CreateSessionOptions": (10, [c_void_p]),
    "SetSessionExecutionMode": (13, [c_void_p, c_int]),
    "SetSessionLogSeverityLevel": (22, [c_void_p, c_int]),
    "SetIntraOpNumThreads": (24, [c_void_p, c_int]),
    "SetInterOpNumThreads": (25, [c_void_p, c_int]),
    "SessionGetInputCount": (30, [c_void_p, c_void_p]),
    "SessionGetOutputCount": (31, [c_void_p, c_void_p]),
    "SessionGetInputTypeInfo": (33, [c_void_p, c_size_t, c_void_p]),
    "SessionGetOutputTypeInfo": (34, [c_void_p, c_size_t, c_void_p]),
    "SessionGetInputName": (36, [c_void_p, c_size_t, c_void_p, c_void_p]),
    "SessionGetOutputName": (37, [c_void_p, c_size_t, c_void_p, c_void_p]),
    "CreateRunOptions": (39, [c_void_p]),
    "RunOptionsSetTerminate": (46, [c_void_p]),
    "CreateTensorWithDataAsOrtValue": (
        49,
        [c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_int, c_void_p],
    ),
    "CastTypeInfoToTensorInfo": (55, [c_void_p, c_void_p]),
    "GetTensorElementType": (60, [c_void_p, c_void_p]),
    "GetDimensionsCount": (61, [c_void_p, c_void_p]),
    "GetDimensions": (62, [c_void_p, c_void_p, c_size_t]),
    "CreateCpuMemoryInfo": (69, [c_int, c_int, c_void_p]),
    "AllocatorFree": (76, [c_void_p, c_void_p]),
    "GetAllocatorWithDefaultOptions": (78, [c_void_p]),
    "AddSessionConfigEntry": (130, [c_void_p, c_char_p, c_char_p]),
}
#: these return nothing
_RELEASES = {
    "ReleaseEnv": 92,
    "ReleaseStatus": 93,
    "ReleaseSession": 95,
    "ReleaseValue": 96,
    "ReleaseRunOptions": 97,
    "ReleaseTypeInfo": 98,
    "ReleaseSessionOptions": 100,
}
_ERROR_MESSAGE = 2


class NativeError(Exception):
    """Reports what the runtime refused, in its own words."""


class Library:
    """Calls the functions of the runtime's C library by name; every failure is raised.

    Args:
        path: of the shared library.
    """

    def __init__(self, path: Path) -> None:
        base_of = ctypes.CDLL(str(path)).OrtGetApiBase
        base_of.restype = ctypes.POINTER(c_void_p)
        base = base_of()
        table = ctypes.CFUNCTYPE(c_void_p, ctypes.c_uint32)(base[0])(_API_VERSION)
        if not table:
            raise OSError(f"{path.name} is older than its functions that are needed here")
        places = ctypes.cast(table, ctypes.POINTER(c_void_p))
        message = ctypes.CFUNCTYPE(c_char_p, c_void_p)(places[_ERROR_MESSAGE])
        self.version = ctypes.CFUNCTYPE(c_char_p)(base[1])().decode()
        self._message = message
        self._functions = {
            name: ctypes.CFUNCTYPE(c_void_p, *types)(places[at])
            for name, (at, types) in _FUNCTIONS.items()
        }
        self._releases = {
            name: ctypes.CFUNCTYPE(None, c_void_p)(places[at]) for name, at in _RELEASES.items()
        }
        self.env = self.make("CreateEnv", _QUIET, b"policy")
        self.open: weakref.WeakSet[NativeSession] = weakref.WeakSet()
        atexit.register(self._end)
        self.memory = self.make("CreateCpuMemoryInfo", 0, 0)
        self.allocator = self.make("GetAllocatorWithDefaultOptions")

    def _end(self) -> None:
        """Give back sessions and environment while the library's own globals still stand."""
        for session in list(self.open):
            session.close()
        self.release("ReleaseEnv", self.env)

    def call(self, name: str, *args: Any) -> None:
        """Call a function; raises ``NativeError`` with what it says."""
        status = self._functions[name](*args)
        if status:
            text = (self._message(status) or b"").decode(errors="replace")
            self.release("ReleaseStatus", status)
            raise NativeError(text)

    def make(self, name: str, *args: Any) -> c_void_p:
        """Call a function whose last argument is where it puts what it made."""
        made = c_void_p()
        self.call(name, *args, ctypes.byref(made))
        return made

    def count(self, name: str, *args: Any) -> int:
        """Call a function whose last argument is where it puts a number."""
        found = c_size_t()
        self.call(name, *args, ctypes.byref(found))
        return found.value

    def text(self, name: str, *args: Any) -> str | None:
        """Call a function that makes a text, and free that."""
        made = self.make(name, *args)
        if not made:
            return None
        text = ctypes.string_at(made).decode(errors="replace")
        self.call("AllocatorFree", self.allocator, made)
        return text

    def release(self, name: str, pointer: Any) -> None:
        """Give back what was made."""
        self._releases[name](pointer)


@lru_cache(maxsize=1)
def library() -> Library | None:
    """Open the C library in the installed onnxruntime; None where it has none that fits."""
    spec = importlib.util.find_spec("onnxruntime")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted((Path(place) / "capi").glob("libonnxruntime.so*")):
            try:
                return Library(path)
            except (OSError, AttributeError, NativeError):
                continue
    return None


class _Bound:
    """An array (1, ...) at a fixed place that the runtime reads or writes."""

    def __init__(self, lib: Library, info: TensorInfo) -> None:
        kind = next(number for number, dtype in _DTYPES.items() if dtype == info.dtype)
        self.array = np.zeros(info.shape, info.dtype)
        self._dims = (c_int64 * len(info.shape))(*info.shape)
        self.value = lib.make(
            "CreateTensorWithDataAsOrtValue",
            lib.memory,
            self.array.ctypes.data,
            self.array.nbytes,
            self._dims,
            len(info.shape),
            kind,
        )


class NativeSession:
    """Runs one model on one thread that never spins; not for two threads at once.

    Args:
        model: (n,) uint8, the file's bytes; nothing else is read.

    Attributes:
        inputs: name, dtype and shape of each input; -1 where a size is open.
        outputs: the same of each output.
    """

    def __init__(self, model: np.ndarray) -> None:
        lib = library()
        if lib is None:
            raise NativeError("the installed onnxruntime has no C library")
        self._lib = lib
        self._lock = threading.Lock()
        options = lib.make("CreateSessionOptions")
        try:
            lib.call("SetIntraOpNumThreads", options, 1)
            lib.call("SetInterOpNumThreads", options, 1)
            lib.call("SetSessionExecutionMode", options, 0)
            lib.call("SetSessionLogSeverityLevel", options, _QUIET)
            for key in (b"session.intra_op.allow_spinning", b"session.inter_op.allow_spinning"):
                lib.call("AddSessionConfigEntry", options, key, b"0")
            self._session = lib.make(
                "CreateSessionFromArray", lib.env, model.ctypes.data, model.size, options
            )
        finally:
            lib.release("ReleaseSessionOptions", options)
        self._owned: list[tuple[str, c_void_p]] = [("ReleaseSession", self._session)]
        self._end = weakref.finalize(self, _release_all, lib, self._owned)
        self._end.atexit = False  # the library ends its sessions itself, then its environment
        lib.open.add(self)
        self._run_options = lib.make("CreateRunOptions")
        self._owned.append(("ReleaseRunOptions", self._run_options))
        self.inputs = self._tensors("Input")
        self.outputs = self._tensors("Output")
        self._feeds: dict[str, _Bound] = {}
        self._answers: dict[str, _Bound] = {}
        self._plans: dict[tuple[str, ...], tuple[Any, ...]] = {}

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute ``outputs`` (1, ...) by name; ``feed`` has every input (1, ...), or more.

        Raises:
            NativeError: for an input that does not fit, or an operator that fails.
        """
        with self._lock:
            if not self._end.alive:
                raise NativeError("the session is closed")
            wanted = tuple(outputs)
            plan = self._plans.get(wanted)
            if plan is None:
                plan = self._plans[wanted] = self._plan(wanted)
            for name, bound in self._feeds.items():
                value = feed.get(name)
                if value is None or value.shape != bound.array.shape:
                    shape = None if value is None else value.shape
                    raise NativeError(f"{name}: expected {bound.array.shape}, got {shape}")
                np.copyto(bound.array, value, casting="no")
            self._lib.call("Run", self._session, self._run_options, *plan)
            return {name: self._answers[name].array.copy() for name in wanted}

    def cancel(self) -> None:
        """Make the run that goes on now, and every later one, fail at its next operator."""
        if self._end.alive:
            self._lib.call("RunOptionsSetTerminate", self._run_options)

    def close(self) -> None:
        """Free the model in the thread that calls this; may be called twice."""
        with self._lock:
            self._end()

    def _tensors(self, side: str) -> tuple[TensorInfo, ...]:
        lib, session, found = self._lib, self._session, []
        for at in range(lib.count(f"SessionGet{side}Count", session)):
            name = lib.text(f"SessionGet{side}Name", session, at, lib.allocator)
            about = lib.make(f"SessionGet{side}TypeInfo", session, at)
            try:
                tensor = lib.make("CastTypeInfoToTensorInfo", about)
                kind = lib.count("GetTensorElementType", tensor) if tensor else 0
                rank = lib.count("GetDimensionsCount", tensor) if tensor else 0
                dims = (c_int64 * rank)()
                if rank:
                    lib.call("GetDimensions", tensor, dims, rank)
            finally:
                lib.release("ReleaseTypeInfo", about)
            dtype = _DTYPES.get(kind & 0xFFFFFFFF, "other")
            found.append(tensor_info(name, dtype, tuple(dims)))
        return tuple(found)

    def _plan(self, outputs: tuple[str, ...]) -> tuple[Any, ...]:
        """Lay out what is read and written once, where the runtime finds it each time."""
        if not self._feeds:
            self._feeds = {info.name: self._bind(info) for info in self.inputs}
        known = {info.name: info for info in self.outputs}
        for name in outputs:
            if name not in self._answers:
                self._answers[name] = self._bind(known[name])
        answers = [self._answers[name].value for name in outputs]
        feeds = [bound.value for bound in self._feeds.values()]
        return (
            _texts(self._feeds),
            _pointers(feeds),
            len(feeds),
            _texts(outputs),
            len(answers),
            _pointers(answers),
        )

    def _bind(self, info: TensorInfo) -> _Bound:
        if min(info.shape, default=1) < 1:
            raise NativeError(f"{info.name}: expected a fixed shape, got {info.shape}")
        bound = _Bound(self._lib, info)
        self._owned.append(("ReleaseValue", bound.value))
        return bound


def tensor_info(name: str | None, dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    """Describe what a graph has, be it or be it not what a card may name."""
    values: dict[str, Any] = {"name": name or "", "dtype": dtype, "shape": shape, "meaning": ""}
    return TensorInfo.model_construct(**values)


def _texts(names: Collection[str]) -> Any:
    return (c_char_p * len(names))(*(name.encode() for name in names))


def _pointers(values: Sequence[c_void_p]) -> Any:
    return (c_void_p * len(values))(*values)


def _release_all(lib: Library, owned: list[tuple[str, c_void_p]]) -> None:
    for name, pointer in reversed(owned):
        lib.release(name, pointer)
