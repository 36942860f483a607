"""How often somebody may ask: a token bucket each, and a bounded number of buckets."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable


class TokenBucket:
    """``burst`` tokens at first; ``rate_per_s`` come back until there are ``burst`` again. One thread at a time.

    Args:
        rate_per_s: Tokens per second, 0 or more.
        burst: Most tokens at once, more than 0.
        clock: Seconds from any origin; it should not go back, and nothing is lost if it does.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not (rate_per_s >= 0 and burst > 0):
            raise ValueError(f"rate_per_s {rate_per_s} must be 0 or more, burst {burst} more than 0")
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._filled_at = clock()

    def take(self, n: float = 1) -> bool:
        """Takes ``n`` tokens and returns True if there are so many; else takes none."""
        now = self._clock()
        earned = max(now - self._filled_at, 0.0) * self._rate_per_s
        self._tokens = min(self._tokens + earned, self._burst)
        self._filled_at = now
        if n > self._tokens:
            return False
        self._tokens -= n
        return True


class RateLimits:
    """A :class:`TokenBucket` per key. One thread at a time.

    Args:
        rate_per_s: Of each bucket.
        burst: Of each bucket.
        most: Buckets that are kept, 1 or more; the one that was used the longest ago goes, and its key has a full
            bucket when it comes again. So keys must be such that nobody gets new ones for nothing.
        clock: Of the buckets.
    """

    def __init__(
        self, rate_per_s: float, burst: float, most: int = 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._most = max(most, 1)
        self._clock = clock
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable) -> bool:
        """Takes a token from the bucket of ``key``; False if there is none."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate_per_s, self._burst, self._clock)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket.take()
