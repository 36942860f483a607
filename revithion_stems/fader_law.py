"""How far a fader of the live preview stands along its way for a gain: on screens, controllers and tablets. Pure."""

from __future__ import annotations

import math

from revithion_stems.live import HIGHEST_DB, LOWEST_DB

UNITY = 0.75
"""Where a fader stands at 0 dB, as a share of its way."""


def fader_gain_db(position: float, *, unity: float = UNITY) -> float:
    """The gain in dB of a fader that stands at ``position``, 0 to 1: silent, 0 dB at ``unity``, the highest gain at 1.

    Below 0 dB the amplitude is the square of the way, as on a mixer: −12 dB at half of it. Above, dB grow evenly.
    """
    if position > unity:
        return min(HIGHEST_DB, HIGHEST_DB * (position - unity) / (1.0 - unity))
    return max(LOWEST_DB, 40.0 * math.log10(position / unity)) + 0.0 if position > 0.0 else LOWEST_DB


def fader_position(gain_db: float, *, unity: float = UNITY) -> float:
    """The inverse: where a fader stands, 0 to 1, for a gain; 0 for one that is silent."""
    if gain_db > 0.0:
        return min(1.0, unity + (1.0 - unity) * gain_db / HIGHEST_DB)
    return unity * 10.0 ** (gain_db / 40.0) if gain_db > LOWEST_DB else 0.0
