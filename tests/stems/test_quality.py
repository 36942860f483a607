"""Figures of quality: against museval, against plain slow references, and by their laws."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_stems.alignment import find_lag
from revithion_stems.errors import RequestError
from revithion_stems.quality import (
    BLOCK_FRAMES,
    frame_sdr_db,
    median_db,
    null_depth,
    sdr_db,
    sdr_median_db,
    si_sdr_db,
)

# museval adds up four terms that went through FFTs of length 2^15 and more; that noise sits at about −290 dB.
MUSEVAL_TOLERANCE_DB = 1e-6
# Sums of the same float64 products in another order.
SUM_TOLERANCE_DB = 1e-9

SEEDS = st.integers(0, 2**32 - 1)


def noise(seed: int, channels: int = 2, frames: int = 1000, scale: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, frames)) * scale).astype(np.float32)


def song(seed: int, sample_rate: int, seconds: float) -> np.ndarray:
    """Decaying chords over a bass with silent bars: coloured, correlated between channels, with level steps."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    envelope = np.exp(-3.0 * (time % 0.5)) * ((time % 4.0) < 3.0)
    tones = sum(rng.uniform(0.02, 0.2) * np.sin(2 * np.pi * f * time + p) for f, p in rng.uniform(0, 2000, (6, 2)))
    pan = rng.uniform(0.2, 1.0, (2, 1))
    return (pan * tones * envelope + rng.standard_normal((2, time.size)) * 1e-3 * envelope).astype(np.float32)


@pytest.fixture(scope="module")
def bss_eval():
    with warnings.catch_warnings():
        # museval pulls in pandas, musdb and pkg_resources, whose own deprecations are not ours to fix.
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip("museval.metrics")
    return metrics.bss_eval


def museval_sdr(bss_eval, references, estimates, sample_rate, filters_len=8):
    # SDR does not depend on filters_len (the projections cancel), so a short one keeps the test fast.
    return bss_eval(
        np.stack([r.T for r in references]).astype(np.float64),
        np.stack([e.T for e in estimates]).astype(np.float64),
        window=1.0 * sample_rate,
        hop=1.0 * sample_rate,
        filters_len=filters_len,
    )[0]


def test_matches_museval_with_its_own_filter_length(bss_eval):
    rate = 8000
    reference = song(1, rate, 5.3)
    estimate = reference * 0.9 + noise(2, frames=reference.shape[1], scale=0.01)
    theirs = museval_sdr(bss_eval, [reference], [estimate], rate, filters_len=512)[0]
    ours = frame_sdr_db(reference, estimate, rate)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=MUSEVAL_TOLERANCE_DB)
    assert sdr_median_db(reference, estimate, rate) == pytest.approx(np.nanmedian(theirs), abs=MUSEVAL_TOLERANCE_DB)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("frames", [500, 1000, 1001, 1999, 2000, 2999, 7350])
def test_matches_museval_framing_at_every_length(bss_eval, channels, frames):
    reference = noise(frames, channels, frames)
    estimate = reference + noise(frames + 1, channels, frames, scale=0.03)
    theirs = museval_sdr(bss_eval, [reference], [estimate], 1000)[0]
    np.testing.assert_allclose(frame_sdr_db(reference, estimate, 1000), theirs, rtol=0, atol=MUSEVAL_TOLERANCE_DB)


def test_matches_museval_on_silent_and_antiphase_windows(bss_eval):
    reference, estimate = noise(1, frames=6500), noise(2, frames=6500)
    reference[:, 1000:2000] = 0
    estimate[:, 2000:3000] = 0
    reference[1, 4000:5000] = -reference[0, 4000:5000]
    theirs = museval_sdr(bss_eval, [reference], [estimate], 1000)[0]
    ours = frame_sdr_db(reference, estimate, 1000)
    assert np.isnan(ours).tolist() == [False, True, True, False, True, False]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=MUSEVAL_TOLERANCE_DB)


def test_matches_museval_for_several_stems_once_windows_silent_in_any_are_dropped(bss_eval):
    references = [song(seed, 4000, 6.4) for seed in (1, 2, 3)]
    references[0][:, 4000:8000] = 0
    references[2][:, 20000:24000] = 0
    estimates = [r * 0.8 + noise(9, frames=r.shape[1], scale=0.02) for r in references]
    theirs = museval_sdr(bss_eval, references, estimates, 4000)
    ours = np.stack([frame_sdr_db(r, e, 4000) for r, e in zip(references, estimates, strict=True)])
    joint = ours[:, ~np.isnan(ours).any(axis=0)]
    for row, museval_row in zip(joint, theirs, strict=True):
        assert median_db(row) == pytest.approx(np.nanmedian(museval_row), abs=MUSEVAL_TOLERANCE_DB)


def test_sums_over_blocks_equal_the_plain_formula():
    frames = 2 * BLOCK_FRAMES + 77
    reference, estimate = noise(1, frames=frames), noise(2, frames=frames)
    s, e = reference.astype(np.float64).ravel(), estimate.astype(np.float64).ravel()
    assert sdr_db(reference, estimate) == pytest.approx(
        10 * math.log10(np.sum(s**2) / np.sum((s - e) ** 2)), abs=SUM_TOLERANCE_DB
    )
    target = np.dot(s, e) / np.dot(s, s) * s
    assert si_sdr_db(reference, estimate) == pytest.approx(
        10 * math.log10(np.sum(target**2) / np.sum((target - e) ** 2)), abs=SUM_TOLERANCE_DB
    )
    depth = null_depth(reference, estimate)
    rms_ratio = math.sqrt(np.mean((s - e) ** 2)) / math.sqrt(np.mean(s**2))
    assert depth.null_db == pytest.approx(20 * math.log10(rms_ratio), abs=SUM_TOLERANCE_DB)
    assert depth.max_abs == np.abs(s - e).max()
    assert depth.peak_dbfs == pytest.approx(20 * math.log10(depth.max_abs))


@given(seed=SEEDS, gain_db=st.floats(-60, 60), channels=st.integers(1, 4))
def test_si_sdr_does_not_depend_on_the_scale_of_either_signal(seed, gain_db, channels):
    reference = noise(seed, channels, 200).astype(np.float64)
    estimate = reference + noise(seed + 1, channels, 200, scale=0.05)
    gain = 10 ** (gain_db / 20)
    expected = si_sdr_db(reference, estimate)
    assert si_sdr_db(reference, gain * estimate) == pytest.approx(expected, abs=1e-6)
    assert si_sdr_db(gain * reference, -estimate) == pytest.approx(expected, abs=1e-6)


@given(seed=SEEDS, error_db=st.floats(-120, 20))
def test_sdr_of_signal_plus_scaled_noise_is_the_ratio_of_their_energies(seed, error_db):
    reference = noise(seed).astype(np.float64)
    error = noise(seed ^ 1).astype(np.float64)
    error *= 10 ** (error_db / 20) * np.linalg.norm(reference) / np.linalg.norm(error)
    # estimate − reference rounds at 2^-53 of the reference: 1e-16 / 10^(-120/20) of the error's amplitude.
    assert sdr_db(reference, reference + error) == pytest.approx(-error_db, abs=1e-6)
    assert null_depth(reference, reference + error).null_db == pytest.approx(error_db, abs=1e-6)


@given(seed=SEEDS, gain=st.floats(0.01, 0.99))
def test_sdr_of_a_scaled_copy_is_known(seed, gain):
    reference = noise(seed).astype(np.float64)
    assert sdr_db(reference, gain * reference) == pytest.approx(-20 * math.log10(1 - gain), abs=1e-6)


@given(seed=SEEDS)
def test_swapping_channels_changes_nothing(seed):
    reference, estimate = noise(seed), noise(seed) + noise(seed ^ 3, scale=0.02)
    assert sdr_db(reference[::-1], estimate[::-1]) == pytest.approx(sdr_db(reference, estimate), abs=SUM_TOLERANCE_DB)
    assert si_sdr_db(reference[::-1], estimate[::-1]) == pytest.approx(si_sdr_db(reference, estimate), abs=1e-6)


@settings(max_examples=60)
@given(seed=SEEDS, shift=st.integers(-300, 300), inverted=st.booleans(), channels=st.integers(1, 3))
def test_lag_of_a_shifted_copy_is_the_shift(seed, shift, inverted, channels):
    long = noise(seed, channels, 2600)
    reference, estimate = long[:, 300:2300], long[:, 300 - shift : 2300 - shift]
    found = find_lag(reference, -estimate if inverted else estimate, 300)
    assert found.frames == shift
    assert found.correlation == pytest.approx(-1.0 if inverted else 1.0, abs=1e-9)


@given(seed=SEEDS, frames=st.integers(1, 60), max_lag=st.integers(0, 80))
def test_lag_equals_the_plain_search(seed, frames, max_lag):
    reference, estimate = noise(seed, 1, frames), noise(seed ^ 7, 1, frames)
    s, e = reference[0].astype(np.float64), estimate[0].astype(np.float64)
    reach = min(max_lag, frames - 1)
    full = np.correlate(e, s, mode="full")[frames - 1 - reach : frames + reach]
    found = find_lag(reference, estimate, max_lag)
    assert found.frames is not None
    assert abs(full[found.frames + reach]) == pytest.approx(np.abs(full).max(), rel=1e-9)


@pytest.mark.parametrize("shift", [-40_000, -1105, 0, 1, 1105, 44_100])
def test_lag_is_found_across_block_borders(shift):
    frames = 2 * BLOCK_FRAMES + 991
    long = noise(5, 2, frames + 90_000)
    reference, estimate = long[:, 45_000 : 45_000 + frames], long[:, 45_000 - shift : 45_000 - shift + frames]
    found = find_lag(reference, estimate, 44_100)
    assert (found.frames, round(found.correlation, 9)) == (shift, 1.0)


def test_lag_of_a_wide_signal_uses_its_strongest_channel():
    side = noise(3, 1, 3000)
    reference = np.concatenate([0.5 * side, -0.5 * side])
    found = find_lag(reference, np.roll(reference, 12, axis=1), 50)
    assert found.frames == 12
    assert found.correlation == pytest.approx(1.0, abs=0.01)  # np.roll wraps 12 of 3000 frames around


def test_silence_has_no_ratio_and_no_lag():
    silence, sound = np.zeros((2, 3000), np.float32), noise(1, frames=3000)
    assert math.isnan(sdr_db(silence, silence))
    assert sdr_db(silence, sound) == -math.inf
    assert sdr_db(sound, silence) == 0.0
    assert math.isnan(si_sdr_db(silence, sound))
    assert math.isnan(si_sdr_db(sound, silence))
    assert math.isnan(sdr_median_db(silence, sound, 1000))
    assert math.isnan(sdr_median_db(sound, silence, 1000))
    assert null_depth(silence, silence).identical
    assert null_depth(silence, sound).null_db == math.inf
    for pair in ((silence, sound), (sound, silence), (silence, silence)):
        assert find_lag(*pair, 100).frames is None


def test_equal_signals_null_completely():
    sound = noise(1, frames=3000)
    depth = null_depth(sound, sound.copy())
    assert (depth.null_db, depth.max_abs, depth.peak_dbfs, depth.identical) == (-math.inf, 0.0, -math.inf, True)
    assert sdr_db(sound, sound) == sdr_median_db(sound, sound, 1000) == math.inf
    assert find_lag(sound, sound, 100).frames == 0


def test_orthogonal_estimate_has_no_si_sdr():
    assert si_sdr_db(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) == -math.inf


def test_one_sample_is_enough():
    one, half = np.array([[1.0]]), np.array([[0.5]])
    assert sdr_db(one, half) == sdr_median_db(one, half, 44_100) == pytest.approx(20 * math.log10(2))
    assert find_lag(one, -half, 1000) == find_lag(one, -half, 0)
    assert (find_lag(one, -half, 0).frames, find_lag(one, -half, 0).correlation) == (0, -1.0)


def test_a_null_shows_a_single_wrong_sample_by_its_peak():
    mix = noise(1, frames=100_000)
    total = mix.copy()
    total[0, 70_000] += np.float32(0.25)
    depth = null_depth(mix, total)
    assert depth.max_abs == pytest.approx(0.25, abs=1e-7)
    assert not depth.identical
    assert depth.null_db < -40


FIGURES = {
    "sdr": sdr_db,
    "frames": lambda a, b: frame_sdr_db(a, b, 100),
    "si_sdr": si_sdr_db,
    "null": null_depth,
    "lag": lambda a, b: find_lag(a, b, 10),
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES.keys())
@pytest.mark.parametrize(
    ("reference", "estimate", "code"),
    [
        (np.ones((2, 10)), np.ones((2, 11)), "compare.shape"),
        (np.ones((2, 10)), np.ones((1, 10)), "compare.shape"),
        (np.ones((2, 0)), np.ones((2, 0)), "compare.shape"),
        (np.ones((0, 5)), np.ones((0, 5)), "compare.shape"),
        (np.ones(10), np.ones(10), "compare.shape"),
        (np.array(1.0), np.array(1.0), "compare.shape"),
        (np.ones((1, 2)), np.array([[1.0, math.nan]]), "compare.not_finite"),
        (np.array([[math.inf, 1.0]]), np.ones((1, 2)), "compare.not_finite"),
    ],
)
def test_unusable_signals_are_refused(figure, reference, estimate, code):
    with pytest.raises(RequestError) as caught:
        figure(reference, estimate)
    assert caught.value.code == code


def test_unusable_parameters_are_refused():
    with pytest.raises(RequestError, match="sample_rate is 0"):
        frame_sdr_db(np.ones((1, 2)), np.ones((1, 2)), 0)
    with pytest.raises(RequestError, match="max_lag is -1"):
        find_lag(np.ones((1, 2)), np.ones((1, 2)), -1)
