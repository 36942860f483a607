"""PyTorch's failures as ours, for all engines that use it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from revithion_stems.errors import EngineError


@contextlib.contextmanager
def torch_errors(device: str) -> Generator[None]:
    """Turns what PyTorch raises inside while it computes on ``device`` into :class:`EngineError`."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise EngineError(
            f"PyTorch failed on {device}: {reason}",
            hint="Close other programs if memory ran out, or use --device cpu.",
            code="engine.failed",
        ) from exc
