"""Opens an ONNX model in the installed runtime; nothing else imports onnxruntime.

The runtime's C library is taken where the wheel has one (see ``onnx_native``).  Otherwise its
Python binding runs the same model, and holds the interpreter's lock while it opens it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from wm_core.contract.card import TensorInfo
from wm_core.contract.errors import PolicyFailed, PolicyRefused
from wm_core.contract.memory_limit import bounded_memory
from wm_core.contract.onnx_native import NativeError, NativeSession, library, tensor_info


class OnnxSession(Protocol):
    """Runs one model on one thread that never spins; not for two threads at once."""

    inputs: tuple[TensorInfo, ...]  #: name, dtype and shape of each input; -1: an open size
    outputs: tuple[TensorInfo, ...]

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute ``outputs`` (1, ...) by name; ``feed`` has every input (1, ...), or more."""
        ...

    def cancel(self) -> None:
        """Make the run that goes on now, and every later one, fail."""
        ...

    def close(self) -> None:
        """Free the model in the thread that calls this; may be called twice."""
        ...


class PythonSession:
    """Runs a model by the runtime's Python binding.

    Args:
        model: (n,) uint8, the file's bytes; nothing else is read.
    """

    def __init__(self, model: np.ndarray) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong is raised, not logged
        session = onnxruntime.InferenceSession(
            model.tobytes(), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._options, self._session = onnxruntime.RunOptions(), session
        self.inputs = tuple(_info(arg) for arg in session.get_inputs())
        self.outputs = tuple(_info(arg) for arg in session.get_outputs())

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        if self._session is None:
            raise NativeError("the session is closed")
        given = {info.name: feed[info.name] for info in self.inputs}
        values = self._session.run(outputs, given, self._options)
        return dict(zip(outputs, values, strict=True))

    def cancel(self) -> None:
        self._options.terminate = True

    def close(self) -> None:
        self._session = None


class _Guarded:
    """Turns whatever a runtime raises into an error of this project."""

    def __init__(self, session: OnnxSession) -> None:
        self._session = session
        self.inputs, self.outputs = session.inputs, session.outputs
        self.cancel, self.close = session.cancel, session.close

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        try:
            return self._session.run(feed, outputs)
        except Exception as error:  # the runtime's exceptions share no public base class
            raise PolicyFailed(f"policy does not run: {_first_line(error)}") from error


def open_session(pieces: Sequence[bytes | memoryview]) -> OnnxSession:
    """Open the ONNX model whose bytes are ``pieces``, for running on one thread.

    Raises:
        PolicyRefused: for bytes that the runtime does not load.
    """
    kind: type[Any] = PythonSession if library() is None else NativeSession
    model = _joined(pieces)
    try:
        with bounded_memory(model.size):
            return _Guarded(kind(model))
    except Exception as error:  # the runtime's exceptions share no public base class
        raise PolicyRefused(f"policy file does not load: {_first_line(error)}") from error


def _joined(pieces: Sequence[bytes | memoryview]) -> np.ndarray:
    """Put ``pieces`` into one array (n,) uint8; numpy lets other threads run while it copies."""
    parts = [np.frombuffer(piece, np.uint8) for piece in pieces if len(piece)]
    if len(parts) == 1:
        return parts[0]
    joined, at = np.empty(sum(part.size for part in parts), np.uint8), 0
    for part in parts:
        joined[at : at + part.size] = part
        at += part.size
    return joined


def _first_line(error: Exception) -> str:
    """Cut an exception of the runtime down to what it says."""
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _info(arg: Any) -> TensorInfo:
    """Describe an input or output of the Python binding's session."""
    name = str(arg.type).removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(name, name)
    shape = tuple(size if isinstance(size, int) else -1 for size in arg.shape)
    return tensor_info(arg.name, dtype, shape)
