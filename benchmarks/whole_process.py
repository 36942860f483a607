"""A child process measured from outside: wall time and peak memory of all of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping


def measure(arguments: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Wall seconds and peak MiB of this interpreter run with ``arguments``; ends the benchmark if it fails."""
    started = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], {**os.environ, **environment})
    _, status, usage = os.wait4(pid, 0)
    elapsed = time.perf_counter() - started
    if status != 0:
        raise SystemExit(f"a run failed: {arguments}")
    return elapsed, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
