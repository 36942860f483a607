"""How long things took: percentiles over the last ones."""

from __future__ import annotations

import math
import threading
from collections import deque

from revithion_bridge.messages import Latency


class LatencyWindow:
    """The last durations of one kind. Any thread.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int = 1024) -> None:
        self._lock = threading.Lock()
        self._last: deque[float] = deque(maxlen=size)
        self._count = 0

    def add(self, seconds: float) -> None:
        """Notes a duration in seconds; one below 0, from a clock that was set, counts as 0."""
        with self._lock:
            self._last.append(max(seconds, 0.0))
            self._count += 1

    def summary(self) -> Latency:
        """Percentiles by nearest rank: each is a duration that there was, and so many are not longer."""
        with self._lock:
            count, ordered = self._count, sorted(self._last)
        if not ordered:
            return Latency()

        def percentile(percent: int) -> float:
            return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]

        return Latency(count=count, p50_s=percentile(50), p90_s=percentile(90), p99_s=percentile(99))
