"""The preview without weights: the laws at each rate, and that each kind of sound goes where it should."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from processor_laws import assert_close, check_laws, check_offline, prepared, stream
from revithion_realtime.block_processor import run_offline
from revithion_realtime.models.dsp_preview import (
    STEMS,
    DspPreview,
    LastingPower,
    broad_power,
    median_of_nine,
    sort_three,
)
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError
from revithion_stems.live import LIVE_RATES
from revithion_stems.quality import sdr_db

FRAMES = 66_150  # 1.5 s


def tone(hz: float, level: float) -> Float32:
    return (level * np.sin(2 * np.pi * hz * np.arange(FRAMES) / 44_100)).astype(np.float32)


def strokes() -> Float32:
    """Bursts of noise of some 20 ms, four in a second."""
    age = np.arange(FRAMES) % 11_025
    return (0.5 * np.exp(-age / 400) * np.random.default_rng(5).standard_normal(FRAMES)).astype(np.float32)


def song() -> dict[str, Float32]:
    """A small band, ``[2, frames]`` each: strokes and a voice in the middle, a low bass, chords hard to the sides."""
    chords = tone(392, 0.1) + tone(587, 0.1) + tone(784, 0.1)
    voice = tone(660, 0.15) + tone(1_320, 0.1) + tone(1_980, 0.05)
    return {
        "drums": np.stack([strokes()] * 2),
        "bass": np.stack([tone(82, 0.3)] * 2),
        "other": np.stack([chords, -chords]),
        "vocals": np.stack([voice] * 2),
    }


def separated(mix: Float32) -> Mapping[str, Float32]:
    return dict(zip(STEMS, run_offline(prepared(DspPreview, 44_100), mix), strict=True))


@pytest.mark.parametrize("sample_rate", LIVE_RATES)
def test_it_keeps_the_laws(sample_rate: int) -> None:
    check_laws(DspPreview, sample_rate, frames=6_000, tolerance=2e-6, examples=4)


def test_the_offline_run_is_the_stream_without_its_delay() -> None:
    check_offline(DspPreview, 44_100, frames=6_000)


@pytest.mark.parametrize(("sample_rate", "frames"), [(44_100, 512), (48_000, 512), (88_200, 1_024), (96_000, 1_024)])
def test_the_delay_is_below_twelve_milliseconds(sample_rate: int, frames: int) -> None:
    processor = prepared(DspPreview, sample_rate)
    assert processor.latency_frames == frames
    assert processor.hop_frames == frames // 2


@pytest.mark.parametrize("stem", STEMS)
def test_each_stem_is_better_than_a_quarter_of_the_mix(stem: str) -> None:
    parts = song()
    mix = sum(parts.values(), np.zeros((2, FRAMES), np.float32))
    assert sdr_db(parts[stem], separated(mix)[stem]) > sdr_db(parts[stem], mix / 4) + 3


@pytest.mark.parametrize(
    ("stem", "sound"),
    [("bass", np.stack([tone(60, 0.3)] * 2)), ("drums", np.stack([strokes()] * 2)), ("other", song()["other"])],
)
def test_a_sound_alone_goes_mostly_to_its_stem(stem: str, sound: Float32) -> None:
    energies = {name: float(np.square(part).sum()) for name, part in separated(sound).items()}
    assert max(energies, key=energies.__getitem__) == stem


def test_a_voice_is_heard_in_the_middle_and_not_at_the_sides() -> None:
    parts = song()
    centred = separated(parts["vocals"] + parts["other"])["vocals"]
    at_the_sides = separated(parts["vocals"] * np.array([[1], [-1]], np.float32) + parts["bass"])["vocals"]
    assert np.square(centred).sum() > 10 * np.square(at_the_sides).sum()


def test_mono_stays_mono_and_no_stem_takes_all_of_it() -> None:
    one = sum(part[0] if name != "other" else np.abs(part[0]) for name, part in song().items())
    mix = np.stack([one, one]).astype(np.float32)
    parts = separated(mix)
    whole = float(np.square(mix).sum())
    for part in parts.values():
        assert_close(part[0], part[1], 1e-6)
        assert 0.005 * whole < float(np.square(part).sum()) < 0.8 * whole


def test_left_and_right_are_treated_alike() -> None:
    mix = (sum(song().values()) * np.array([[1.0], [0.6]])).astype(np.float32)
    there, mirrored = separated(mix), separated(np.ascontiguousarray(mix[::-1]))
    for name, part in there.items():
        assert_close(mirrored[name][::-1], part, 1e-5)


def test_the_level_of_the_mix_does_not_matter() -> None:
    mix = sum(song().values(), np.zeros((2, FRAMES), np.float32))
    loud, quiet = separated(mix), separated(mix / np.float32(64))
    for name in STEMS:
        assert_close(quiet[name] * 64, loud[name], 1e-3)


def test_the_loudest_samples_that_may_come_do_no_harm() -> None:
    noise = np.random.default_rng(1).standard_normal((2, 6_000)).astype(np.float32)
    stream(prepared(DspPreview, 44_100), noise * np.float32(1e12))  # looks for NaN


def test_the_median_of_nine_is_right_for_any_order() -> None:
    # What only takes minima and maxima is right for all numbers if it is for zeros and ones (Knuth: TAOCP 3, 5.3.4).
    nine = [(np.arange(512) >> bit & 1).astype(np.float32) for bit in range(9)]
    found = median_of_nine(sort_three(*nine[:3]), sort_three(*nine[3:6]), sort_three(*nine[6:]))
    assert np.array_equal(found, np.median(nine, axis=0))


@pytest.mark.parametrize("stride", [1, 4, 5])
def test_what_lasts_is_the_median_of_nine_hops_apart(stride: int) -> None:
    hops = np.random.default_rng(2).random((12 * stride, 2, 7), np.float32)
    lasting = LastingPower(stride, 7)
    silence = np.zeros((8 * stride, 2, 7), np.float32)
    padded = np.concatenate([silence, hops])
    for _ in range(2):  # again after a reset
        for hop, power in enumerate(hops):
            assert_close(lasting.next(power), np.median(padded[hop : hop + 8 * stride + 1 : stride], axis=0), 1e-12)
        lasting.reset()


@pytest.mark.parametrize("bins", [1, 4, 9, 100])
def test_what_is_broad_is_the_median_of_the_nine_bins_around(bins: int) -> None:
    power = np.random.default_rng(bins).random((2, bins), np.float32)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(power, ((0, 0), (4, 4)), mode="edge"), 9, axis=1)
    assert np.array_equal(broad_power(power), np.median(around, axis=2))


def test_a_rate_that_no_device_has_is_refused() -> None:
    with pytest.raises(LiveError, match="22050 Hz; 44100, 48000"):
        DspPreview().prepare(22_050)
