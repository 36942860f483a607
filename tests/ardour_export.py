"""What a session of Ardour sounds like, by Ardour's own program."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EXPORTS = 6
ROUNDING = 1e-6
"""Ardour adds tracks up in any order, and only stems of the session's own rate are on a grid on which that is no matter."""


def agreed_export(export: Callable[[], np.ndarray]) -> np.ndarray:
    """What two exports of one session agree on.

    ``ardour7-export`` 7.3 adds, in one run of some twenty, the same arbitrary number (0.007 once, 1e37 another time) to
    the first sample of each of its blocks, and none of it in the next run of the same session. What the session itself
    does wrong is in every run.

    Args:
        export: Exports the session anew, and gives the samples.
    """
    before = export()
    for _ in range(EXPORTS):
        after = export()
        if before.shape == after.shape and np.allclose(before, after, rtol=0.0, atol=ROUNDING):
            return after
        before = after
    raise AssertionError(f"no two of {EXPORTS + 1} exports of one session are the same")
