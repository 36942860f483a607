"""What the mixer's slots are to hold for strips that stand so: pan, mute and solo become two gains. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from revithion_realtime.mixer.strip_slots import Slot, monitor_slot, slot_number
from revithion_stems.live import LOWEST_DB, StripSettings


def targets(strips: Sequence[StripSettings], monitor_gain_db: float) -> dict[int, float]:
    """The value of every slot, by its number.

    A strip is heard unless it is muted, or another one is solo and it is not itself; mute wins over solo. Pan is a
    balance: it takes from one side and adds nothing to the other.

    Args:
        strips: In the order of the mixer's strips.
        monitor_gain_db: Of the monitor mix, dB.

    Returns:
        Slot number → linear gain, or for the filter its position; six for each strip, and one for the monitor mix.
    """
    soloed = any(strip.solo for strip in strips)
    values = {monitor_slot(len(strips)): linear_gain(monitor_gain_db)}
    for number, strip in enumerate(strips):
        heard = not strip.muted and (strip.solo or not soloed)
        gain = linear_gain(strip.gain_db) if heard else 0.0
        for slot, value in (
            (Slot.GAIN_LEFT, gain * min(1.0, 1.0 - strip.pan)),
            (Slot.GAIN_RIGHT, gain * min(1.0, 1.0 + strip.pan)),
            (Slot.LOW, linear_gain(strip.low_db)),
            (Slot.MID, linear_gain(strip.mid_db)),
            (Slot.HIGH, linear_gain(strip.high_db)),
            (Slot.FILTER, strip.filter),
        ):
            values[slot_number(number, slot)] = value
    return values


def linear_gain(gain_db: float) -> float:
    """A level in dB as a factor; exactly 0 at :data:`~revithion_stems.live.LOWEST_DB` and below, exactly 1 at 0 dB."""
    return 0.0 if gain_db <= LOWEST_DB else 10.0 ** (gain_db / 20.0)
