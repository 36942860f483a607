"""A memory fence, where the processor needs one."""

from __future__ import annotations

import platform
import threading


def _nothing() -> None:
    return None


def _lock_fence() -> None:
    # Nobody else has this lock, so it never waits; taking and giving it back orders memory on every processor.
    if _LOCK.acquire(blocking=False):
        _LOCK.release()


_LOCK = threading.Lock()

fence = _nothing if platform.machine().lower() in ("x86_64", "amd64", "i686", "x86") else _lock_fence
"""What was written before it is seen before what is written after it.

x86 keeps stores in order, and loads too; Arm (Apple's processors) does not. CPython does not reorder by itself.
"""
