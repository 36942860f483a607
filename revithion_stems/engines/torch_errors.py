"""PyTorch's failures as ours, for all engines that use it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from revithion_stems.errors import EngineError, out_of_memory

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""How PyTorch says it: on CUDA and MPS, and on a CPU under POSIX and Windows."""


@contextlib.contextmanager
def torch_errors(device: str) -> Generator[None]:
    """Turns what PyTorch raises inside while it computes on ``device`` into :class:`EngineError`."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if is_out_of_memory(exc):
            raise out_of_memory(f"on {device}, in PyTorch") from exc
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise EngineError(
            f"PyTorch failed on {device}: {reason}",
            hint="Use another --engine or --device.",
            code="engine.failed",
        ) from exc


def is_out_of_memory(error: Exception) -> bool:
    """Whether what PyTorch raised is that."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)
