"""Figures of an evaluation: against museval, against plain references, and by their laws."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from revithion_stems.evaluation.bss_eval import bss_medians, frame_figures
from revithion_stems.evaluation.scores import MetricGroup
from revithion_stems.evaluation.song_figures import stem_figures, sum_null_db
from revithion_stems.evaluation.spectral_distances import mel_filters, mel_frequencies, spectra, spectral_distances
from revithion_stems.quality import frame_sdr_db, sdr_median_db

# museval adds up four terms that went through FFTs of length 2^15 and more; that noise sits at about −290 dB.
MUSEVAL_TOLERANCE_DB = 1e-6
# Ours runs in float32, the plain reference in float64.
FLOAT32_TOLERANCE = 2e-3

ENERGY = frozenset({MetricGroup.ENERGY})


def noise(seed: int, frames: int, channels: int = 2, scale: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, frames)) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def museval_metrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that museval imports
        return pytest.importorskip("museval.metrics")


@pytest.mark.parametrize("seed", range(3))
def test_our_sdr_is_musevals_on_the_vectors_of_its_own_tests(museval_metrics, seed):
    """Its ``tests/test_bsseval.py`` takes 2 sources of 1 s at 2000 Hz, uniform in 0…1, mono and stereo."""
    rng = np.random.default_rng(seed)
    rate = 2000
    for channels in (1, 2):
        truth, guess = rng.random((2, 2, 3 * rate, channels))
        theirs = museval_metrics.bss_eval(truth, guess, window=rate, hop=rate)[0]
        ours = [frame_sdr_db(t.T, g.T, rate) for t, g in zip(truth, guess, strict=True)]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=MUSEVAL_TOLERANCE_DB)


def test_the_figures_by_museval_have_our_sdr_and_its_silent_windows(museval_metrics):
    rate = 2000
    truth = [noise(1, 4 * rate), noise(2, 4 * rate)]
    guess = [0.8 * truth[0] + noise(3, 4 * rate, scale=0.02), truth[1] + 0.3 * truth[0]]
    truth[1][:, rate : 2 * rate] = 0
    frames = frame_figures(truth, guess, rate)
    assert np.isnan(frames).any(axis=(0, 1)).tolist() == [False, True, False, False]
    heard = [0, 2, 3]
    for stem in range(2):
        ours = frame_sdr_db(truth[stem], guess[stem], rate)[heard]
        np.testing.assert_allclose(ours, frames[0, stem, heard], rtol=0, atol=MUSEVAL_TOLERANCE_DB)


def test_sir_tells_bleeding_and_sar_tells_noise(museval_metrics):
    rate = 4000
    drums, voice = noise(1, 2 * rate), noise(2, 2 * rate)
    bled, noisy = bss_medians([drums, voice], [drums + 0.3 * voice, voice + noise(3, 2 * rate, scale=0.03)], rate)
    assert bled.sir_db == pytest.approx(-20 * math.log10(0.3), abs=1.0)
    # 2·512·2 taps also fit a part of the noise, so that what is left of it is some dB less.
    assert noisy.sar_db == pytest.approx(10.5, abs=3.0)
    assert bled.sar_db > bled.sir_db + 10
    assert noisy.sir_db > noisy.sar_db


def test_the_mel_scale_is_slaneys():
    # As librosa's documentation prints mel_frequencies(n_mels=40), fmax 11025 Hz.
    published = {0: 0.0, 1: 85.317, 2: 170.635, 11: 938.49, 12: 1024.856, 20: 2071.84, 30: 4994.285, 39: 11025.0}
    found = mel_frequencies(40, 11_025)
    assert {index: round(float(found[index]), 3) for index in published} == published


def test_mel_filters_have_area_one():
    bank = mel_filters(44_100, 40, 4096).toarray()
    np.testing.assert_allclose(bank[5:].sum(axis=1) * 44_100 / 4096, 1.0, rtol=0.02)  # bins are no integral


def plain_distances(reference: np.ndarray, estimate: np.ndarray, rate: int) -> tuple[float, float, float]:
    """The definitions, with loops, in float64, all in memory."""
    bank = mel_filters(rate).toarray().astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(4096) / 4096)

    def magnitudes(samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples.astype(np.float64), ((0, 0), (2048, 2048)))
        columns = range(0, samples.shape[1] + 1, 1024)
        return np.abs([[np.fft.rfft(channel[at : at + 4096] * window) for at in columns] for channel in padded])

    truth, guess = magnitudes(reference), magnitudes(estimate)
    levels = []
    for side in (truth, guess):
        level = 20 * np.log10(np.maximum(side @ bank.T, 1e-10))
        levels.append(np.maximum(level, level.max() - 80))
    difference = levels[1] - levels[0]
    scores = []
    for part in (difference[difference > 0], -difference[difference < 0]):
        scores.append(100 / (1 + (part.mean() if part.size else 0.0)))
    floor = (truth**2).max() * 1e-8
    logs = [10 * np.log10(np.maximum(side**2, floor)) for side in (truth, guess)]
    lsd = np.sqrt(np.square(logs[0] - logs[1]).mean(axis=-1)).mean()
    return scores[0], scores[1], float(lsd)


@pytest.mark.parametrize("frames", [100, 4096, 1024 * 300 + 17])  # the last takes more than one step of 256 columns
def test_spectral_distances_equal_the_plain_definition(frames):
    reference = noise(1, frames) * np.linspace(1, 0, frames, dtype=np.float32)
    estimate = 0.7 * reference + noise(2, frames, scale=0.01)
    found = spectral_distances(reference, estimate, 44_100)
    expected = plain_distances(reference, estimate, 44_100)
    assert (found.bleedless, found.fullness, found.lsd_db) == pytest.approx(expected, rel=FLOAT32_TOLERANCE)


def test_what_is_missing_lowers_fullness_and_what_is_too_much_lowers_bleedless():
    reference, other = noise(1, 30_000), noise(2, 30_000)
    same = spectral_distances(reference, reference, 44_100)
    assert (same.bleedless, same.fullness, same.lsd_db) == (100.0, 100.0, 0.0)
    half = spectral_distances(reference, 0.5 * reference, 44_100)
    assert half.bleedless == 100.0
    assert half.fullness == pytest.approx(100 / (1 + 6.0206), rel=1e-3)
    assert half.lsd_db == pytest.approx(6.0206, rel=1e-3)
    double = spectral_distances(reference, 2 * reference, 44_100)
    assert (double.fullness, double.bleedless) == (100.0, pytest.approx(half.fullness, rel=1e-3))
    silent = spectral_distances(reference, np.zeros_like(reference), 44_100)
    assert silent.bleedless == 100.0
    assert silent.fullness < 2
    worse = spectral_distances(reference, reference + other, 44_100)
    assert worse.bleedless < spectral_distances(reference, reference + 0.1 * other, 44_100).bleedless


def test_spectra_of_a_sine_peak_at_its_bin():
    time = np.arange(8192) / 44_100
    sine = np.sin(2 * np.pi * 100 * 44_100 / 4096 * time)[None].astype(np.float32)
    (columns,) = spectra(sine)
    assert columns.shape == (1, 9, 2049)
    assert columns[0, 4].argmax() == 100
    assert columns[0, 4, 100] == pytest.approx(1024, rel=1e-4)


def figures(references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], groups=ENERGY, rate=1000):
    rows = stem_figures(
        references.__getitem__, estimates, sample_rate=rate, groups=groups, check_cancelled=lambda: None
    )
    return {row.stem: row for row in rows}


def test_a_silent_reference_has_no_figures_and_tells_what_the_estimate_has():
    references = {"drums": noise(1, 3000), "bass": np.zeros((2, 3000), np.float32)}
    estimates = {"drums": noise(2, 3000), "bass": np.full((2, 3000), 0.1, np.float32)}
    rows = figures(references, estimates, frozenset({MetricGroup.ENERGY, MetricGroup.SPECTRAL}), rate=44_100)
    bass = rows["bass"]
    for name in ("sdr_db", "sdr_median_db", "si_sdr_db", "bleedless", "fullness", "lsd_db"):
        assert math.isnan(getattr(bass, name)), name
        assert not math.isnan(getattr(rows["drums"], name)), name
    assert bass.reference_dbfs == -math.inf
    assert bass.estimate_dbfs == pytest.approx(-20.0, abs=1e-5)


def test_a_second_that_is_silent_in_one_stem_counts_in_no_median():
    references = {"drums": noise(1, 5000), "bass": noise(2, 5000)}
    references["bass"][:, 1000:2000] = 0
    estimates = {"drums": references["drums"].copy(), "bass": 0.5 * references["bass"]}
    estimates["drums"][:, 1000:3000] += noise(3, 2000, scale=10.0)  # two bad seconds; one of them does not count
    estimates["drums"] += noise(4, 5000, scale=0.001)
    rows = figures(references, estimates)
    assert (rows["drums"].windows, rows["bass"].windows) == (4, 4)
    kept = frame_sdr_db(references["drums"], estimates["drums"], 1000)[[0, 2, 3, 4]]
    assert rows["drums"].sdr_median_db == pytest.approx(np.median(kept))
    assert rows["drums"].sdr_median_db != sdr_median_db(references["drums"], estimates["drums"], 1000)


def test_the_bss_group_fills_sir_sar_and_isr_and_leaves_out_what_is_silent(museval_metrics):
    references = {"drums": noise(1, 4000), "bass": np.zeros((2, 4000), np.float32), "vocals": noise(2, 4000)}
    estimates = {name: 0.9 * samples + noise(5, 4000, scale=0.01) for name, samples in references.items()}
    rows = figures(references, estimates, frozenset(MetricGroup), rate=2000)
    for name in ("sir_db", "sar_db", "isr_db"):
        assert math.isnan(getattr(rows["bass"], name))
        assert math.isfinite(getattr(rows["drums"], name))
        assert math.isfinite(getattr(rows["vocals"], name))
    direct = bss_medians(
        [references[n] for n in ("drums", "vocals")], [estimates[n] for n in ("drums", "vocals")], 2000
    )
    assert (rows["drums"].sir_db, rows["vocals"].isr_db) == (direct[0].sir_db, direct[1].isr_db)
    assert rows["drums"].sdr_median_db == pytest.approx(direct[0].sdr_db, abs=MUSEVAL_TOLERANCE_DB)


def test_null_of_the_sum_of_estimates():
    mix = noise(1, 70_000)
    assert sum_null_db(mix, [0.5 * mix, 0.5 * mix]) == -math.inf
    assert sum_null_db(mix, [0.9 * mix]) == pytest.approx(-20.0, abs=1e-4)
    assert math.isnan(sum_null_db(np.zeros_like(mix), [mix]))
