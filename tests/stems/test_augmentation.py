"""Augmentation: what each effect promises, that all of it comes from the generator, and what it costs."""

from __future__ import annotations

import math
import time

import msgspec
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_stems.alignment import find_lag
from revithion_stems.audio import Float32
from revithion_stems.errors import ConfigError
from revithion_stems.training.augment_config import AugmentConfig
from revithion_stems.training.augmentation import Augmentation
from revithion_stems.training.effects import (
    add_room,
    change_speed,
    equalise,
    frames_for_speed,
    pan_gains,
    shelf_or_peak,
    through_mp3,
)

RATE = 44_100
EVERYTHING = AugmentConfig(
    gain_probability=1,
    pan_probability=1,
    polarity_probability=1,
    swap_probability=1,
    eq_probability=1,
    reverb_probability=1,
    speed_probability=1,
    mp3_probability=1,
)


def music(frames: int = RATE // 2, seed: int = 0, level: float = 0.1) -> Float32:
    """Noise with a slope like music's, different on both sides."""
    noise = np.random.default_rng(seed).standard_normal((2, frames))
    return (level * scipy.signal.lfilter([0.3], [1, -0.95], noise)).astype(np.float32)


def power(samples: Float32) -> float:
    return float(np.square(samples, dtype=np.float64).sum())


@given(position=st.floats(-1, 1))
def test_panning_keeps_power_and_the_middle_changes_nothing(position: float) -> None:
    assert power(pan_gains(position)) == pytest.approx(2, rel=1e-5)
    np.testing.assert_allclose(pan_gains(0), 1, rtol=1e-6)
    assert (pan_gains(position)[0] >= pan_gains(position)[1]) == (position <= 0) or abs(position) < 1e-6


@pytest.mark.parametrize(("kind", "quiet_hz"), [("low", 15_000), ("peak", 30), ("peak", 18_000), ("high", 20)])
@pytest.mark.parametrize("gain_db", [-6.0, 4.0])
def test_bands_of_the_equaliser_act_where_they_should(kind: str, quiet_hz: float, gain_db: float) -> None:
    sections = shelf_or_peak(kind, 1000, gain_db, RATE)
    loud_hz = {"low": 10, "peak": 1000, "high": 20_000}[kind]
    _, response = scipy.signal.sosfreqz(sections, worN=[loud_hz, quiet_hz], fs=RATE)
    loud_db, quiet_db = 20 * np.log10(np.abs(response))
    assert loud_db == pytest.approx(gain_db, abs=0.1)
    assert quiet_db == pytest.approx(0, abs=0.1)
    _, poles, _ = scipy.signal.sos2zpk(sections)
    assert np.abs(poles).max() < 1


def test_equaliser_does_in_float32_what_it_does_in_float64() -> None:
    samples = music()
    sections = np.concatenate([shelf_or_peak("low", 60, 6, RATE), shelf_or_peak("high", 10_000, -6, RATE)])
    expected = scipy.signal.sosfilt(sections, samples.astype(np.float64), axis=1)
    got = equalise(samples, sections)
    assert got.dtype == np.float32
    assert power(got - expected) < 1e-13 * power(expected)  # the rounding of the result


def test_room_adds_what_a_convolution_adds_and_leaves_the_dry_sound() -> None:
    frames, pause = 6000, 441
    click = np.zeros((2, frames), np.float32)
    click[:, 0] = 1
    response = add_room(click, decay_s=0.1, wet_db=-10, seed=3, sample_rate=RATE)
    np.testing.assert_array_equal(response[:, 0], 1)
    assert not np.abs(response[:, 1:pause]).max() > 1e-6
    wet = response[:, pause:]
    assert 10 * math.log10(power(wet) / 2) == pytest.approx(-10, abs=0.1)
    halves = [power(wet[:, at : at + 1000]) for at in (0, 2205)]  # half of the decay time apart
    assert 10 * math.log10(halves[0] / halves[1]) == pytest.approx(30, abs=2)
    samples = music(frames)
    slow = np.stack([np.convolve(side, ir)[:frames] for side, ir in zip(samples, response, strict=True)])
    got = add_room(samples, decay_s=0.1, wet_db=-10, seed=3, sample_rate=RATE)
    np.testing.assert_allclose(got, slow, atol=1e-5)


@settings(deadline=None, max_examples=15)
@given(semitones=st.floats(-12, 12), frames=st.integers(1, 5000))
def test_speed_gives_the_length_that_was_asked_for(semitones: float, frames: int) -> None:
    speed = 2 ** (semitones / 12)
    needed = frames_for_speed(frames, speed)
    samples = music(needed)
    assert change_speed(samples, speed, frames, RATE).shape == (2, frames)


def test_speed_moves_the_pitch_and_keeps_frame_0() -> None:
    frames, speed = 8000, 2 ** (2 / 12)
    needed = frames_for_speed(frames, speed)
    tone = np.sin(2 * np.pi * 1000 / RATE * np.arange(needed) + 1)
    got = change_speed(np.stack([tone, -tone]).astype(np.float32), speed, frames, RATE)
    expected = np.sin(2 * np.pi * 1000 * speed / RATE * np.arange(frames) + 1)
    np.testing.assert_allclose(got[0, 200:], expected[200:], atol=1e-3)  # after the filter's onset; to the very end
    np.testing.assert_allclose(got[1], -got[0], atol=1e-6)


@pytest.mark.parametrize("kbits", [32, 64, 128, 320])
@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("level", [0.1, 10.0])
def test_mp3_keeps_every_frame_in_its_place(kbits: int, rate: int, level: float) -> None:
    samples = music(20_011, level=level)
    coded = through_mp3(samples, kbits=kbits, sample_rate=rate)
    assert coded.shape == samples.shape
    assert find_lag(samples, coded, 2000).frames == 0
    error_db = 10 * math.log10(power(coded - samples) / power(samples))
    assert -40 < error_db < -3
    assert not through_mp3(np.zeros((2, 3000), np.float32), kbits=kbits, sample_rate=rate).any()


def test_mp3_at_a_higher_rate_is_closer() -> None:
    samples = music(20_000)
    errors = [power(through_mp3(samples, kbits=kbits, sample_rate=RATE) - samples) for kbits in (48, 96, 192)]
    assert errors[0] > errors[1] > errors[2]


def test_all_randomness_is_the_generators() -> None:
    augmentation = Augmentation(EVERYTHING, sample_rate=RATE)

    def run(seed: int) -> Float32:
        rng = np.random.default_rng(seed)
        plan = augmentation.draw(rng)
        stem = plan.apply(music(plan.frames_needed(9000)), 9000)
        assert stem.shape == (2, 9000)
        assert stem.dtype == np.float32
        return augmentation.mix(rng, np.stack([stem, -stem]))

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_turning_an_effect_off_leaves_the_others_as_they_were() -> None:
    plans = [
        Augmentation(config, sample_rate=RATE).draw(np.random.default_rng(5))
        for config in (EVERYTHING, AugmentConfig(gain_probability=1, pan_probability=1, polarity_probability=1))
    ]
    np.testing.assert_array_equal(plans[0].gains, plans[1].gains)
    for config in (EVERYTHING, AugmentConfig.none()):
        rng = np.random.default_rng(5)
        Augmentation(config, sample_rate=RATE).draw(rng)
        assert rng.random() == pytest.approx(_after_a_draw())


def _after_a_draw() -> float:
    rng = np.random.default_rng(5)
    Augmentation(AugmentConfig(), sample_rate=RATE).draw(rng)
    return rng.random()


def test_nothing_is_what_no_probability_gives() -> None:
    augmentation = Augmentation(AugmentConfig.none(), sample_rate=16_000)
    rng = np.random.default_rng(0)
    samples = music(3000)
    before = samples.copy()
    plan = augmentation.draw(rng)
    assert plan.frames_needed(3000) == 3000
    np.testing.assert_allclose(plan.apply(samples, 3000), samples, rtol=1e-6)
    stems = np.stack([samples, samples])
    assert augmentation.mix(rng, stems) is stems
    np.testing.assert_array_equal(samples, before)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_plans_change_nothing_in_place_and_give_what_they_announce(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = Augmentation(AugmentConfig(eq_probability=0.5, reverb_probability=0.5), sample_rate=RATE).draw(rng)
    samples = music(plan.frames_needed(4000))
    samples.flags.writeable = False
    result = plan.apply(samples, 4000)
    assert result.shape == (2, 4000)
    assert np.isfinite(result).all()
    assert not np.shares_memory(result, samples)


def test_stems_of_one_song_can_share_a_speed() -> None:
    augmentation = Augmentation(EVERYTHING, sample_rate=RATE)
    rng = np.random.default_rng(0)
    speed = augmentation.draw_speed(rng)
    assert speed != 1
    assert {augmentation.draw(rng, speed=speed).speed for _ in range(4)} == {speed}


def test_a_bass_gets_no_room() -> None:
    plans = [Augmentation(EVERYTHING, RATE).draw(np.random.default_rng(0), stem) for stem in ("bass", "vocals")]
    assert plans[0].room is None
    assert plans[1].room is not None
    np.testing.assert_array_equal(plans[0].gains, plans[1].gains)


def test_gains_stay_in_their_range() -> None:
    config = AugmentConfig(gain_probability=1, gain_db=(-12, -6), pan_probability=0)
    augmentation = Augmentation(config, sample_rate=RATE)
    rng = np.random.default_rng(0)
    levels = np.array([20 * np.log10(np.abs(augmentation.draw(rng).gains)).ravel() for _ in range(200)])
    assert levels.min() >= -12.001
    assert levels.max() <= -5.999
    assert np.ptp(levels) > 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"gain_probability": 1.1},
        {"speed_probability": math.nan},
        {"pan": 2.0},
        {"gain_db": (3.0, -3.0)},
        {"mp3_kbits": (16, 64)},
        {"mp3_kbits": (65, 70)},
        {"reverb_decay_s": (0.0, 1.0)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))) as error:
        AugmentConfig(**wrong)  # type: ignore[arg-type]
    assert error.value.code == "config.augmentation"


def test_settings_come_from_tables_and_unknown_ones_are_refused() -> None:
    config = msgspec.convert({"gain_db": [-3, 3], "speed_probability": 0}, AugmentConfig)
    assert config == AugmentConfig(gain_db=(-3, 3), speed_probability=0)
    with pytest.raises(msgspec.ValidationError, match="gian_db"):
        msgspec.convert({"gian_db": [-3, 3]}, AugmentConfig)


def test_mp3_is_refused_at_rates_that_it_does_not_have() -> None:
    with pytest.raises(ConfigError, match="MP3"):
        Augmentation(AugmentConfig(), sample_rate=16_000)
    Augmentation(AugmentConfig(mp3_probability=0), sample_rate=16_000)


def test_it_is_cheap() -> None:
    augmentation = Augmentation(AugmentConfig(mp3_probability=0), sample_rate=RATE)
    rng = np.random.default_rng(0)
    samples = music(4 * RATE)
    begun = time.process_time()
    for _ in range(60):
        plan = augmentation.draw(rng)
        plan.apply(samples[:, : plan.frames_needed(3 * RATE)], 3 * RATE)
    # 3 ms on a laptop of 2020; ten times that on a busy machine is no fault of this code.
    assert (time.process_time() - begun) / 60 < 0.03
