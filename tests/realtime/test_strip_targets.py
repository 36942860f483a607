"""Settings of strips as values of the mixer's slots."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revithion_realtime.control.strip_targets import targets
from revithion_realtime.mixer.strip_slots import SLOTS_PER_STRIP, Slot, monitor_slot, slot_number
from revithion_stems.live import HIGHEST_DB, LOWEST_DB, StripSettings

levels = st.floats(LOWEST_DB, HIGHEST_DB)
sides = st.floats(-1, 1)
strips = st.builds(
    StripSettings,
    gain_db=levels,
    pan=sides,
    muted=st.booleans(),
    solo=st.booleans(),
    low_db=levels,
    mid_db=levels,
    high_db=levels,
    filter=sides,
)
desks = st.lists(strips, min_size=1, max_size=6)


def gains(values: dict[int, float], strip: int) -> tuple[float, float]:
    return values[slot_number(strip, Slot.GAIN_LEFT)], values[slot_number(strip, Slot.GAIN_RIGHT)]


def test_neutral_strips_are_exactly_one():
    values = targets([StripSettings(), StripSettings()], 0.0)
    assert {value for number, value in values.items() if number % SLOTS_PER_STRIP != Slot.FILTER} == {1.0}
    assert values[slot_number(1, Slot.FILTER)] == 0.0


@given(desks, levels)
def test_every_slot_has_a_value(desk, monitor):
    values = targets(desk, monitor)
    assert sorted(values) == list(range(len(desk) * SLOTS_PER_STRIP + 1))
    assert monitor_slot(len(desk)) in values
    assert all(-1.0 <= value <= 10 ** (HIGHEST_DB / 20) for value in values.values())


@given(desks)
def test_who_is_heard(desk):
    """Muted: never. Else, if any is solo: those that are. Else all."""
    values = targets(desk, 0.0)
    soloed = any(strip.solo for strip in desk)
    for number, strip in enumerate(desk):
        heard = strip.gain_db > LOWEST_DB and not strip.muted and (strip.solo or not soloed)
        assert (max(gains(values, number)) > 0.0) == heard


@given(desks)
def test_mute_wins_over_solo(desk):
    desk[0] = dataclasses.replace(desk[0], muted=True, solo=True)
    assert gains(targets(desk, 0.0), 0) == (0.0, 0.0)


@given(levels, sides)
def test_pan_takes_from_one_side_only(gain_db, pan):
    left, right = gains(targets([StripSettings(gain_db=gain_db, pan=pan)], 0.0), 0)
    middle, _ = gains(targets([StripSettings(gain_db=gain_db)], 0.0), 0)
    assert max(left, right) == middle
    assert (left >= right) == (pan <= 0) or middle == 0.0 or left == right
    mirrored = gains(targets([StripSettings(gain_db=gain_db, pan=-pan)], 0.0), 0)
    assert mirrored == (right, left)


@pytest.mark.parametrize(("pan", "sides_heard"), [(-1.0, (1.0, 0.0)), (0.0, (1.0, 1.0)), (1.0, (0.0, 1.0))])
def test_the_ends_of_the_balance(pan, sides_heard):
    assert gains(targets([StripSettings(pan=pan)], 0.0), 0) == sides_heard


@pytest.mark.parametrize(("gain_db", "gain"), [(LOWEST_DB, 0.0), (0.0, 1.0), (-20.0, 0.1), (6.0206, 2.0)])
def test_levels_are_decibels_and_the_lowest_is_silence(gain_db, gain):
    strip = StripSettings(gain_db=gain_db, low_db=gain_db, mid_db=gain_db, high_db=gain_db)
    values = targets([strip], gain_db)
    heard = [values[slot_number(0, slot)] for slot in Slot if slot is not Slot.FILTER] + [values[monitor_slot(1)]]
    assert heard == pytest.approx([gain] * 6, abs=1e-5)
    assert (gain_db > LOWEST_DB) or heard == [0.0] * 6


@given(levels, levels)
def test_a_higher_fader_is_louder(low, high):
    low, high = sorted((low, high))
    left, right = (targets([StripSettings(gain_db=gain_db)], 0.0)[0] for gain_db in (low, high))
    assert left <= right


@given(sides)
def test_the_filter_is_passed_on(position):
    assert targets([StripSettings(filter=position)], 0.0)[slot_number(0, Slot.FILTER)] == position
