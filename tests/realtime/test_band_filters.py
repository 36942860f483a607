"""The equaliser and the DJ filter: what scipy computes, in any pieces, and what they do to bands."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_realtime.mixer.band_filters import KillEqualiser, SweepFilter
from revithion_realtime.mixer.chunk_filter import CHUNK, ChunkFilter, Circuit, chunk_matrices

RATE = 48_000
MOST = 1 << 15
FADED = round(0.005 * RATE)
RATES = pytest.mark.parametrize("rate", [44_100, 48_000, 88_200, 96_000])
FLOAT32_STEP = 1e-5  # what both sides must agree to; the filters themselves compute in float64


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (2, frames))


def settled_equaliser(gains: tuple[float, float, float], rate: int = RATE) -> KillEqualiser:
    """With its gains in place, faded in, and nothing heard yet."""
    equaliser = KillEqualiser(rate, MOST)
    for band, gain in enumerate(gains):
        equaliser.move(band, gain, 0)
    equaliser.render(np.zeros((2, 1_000)))
    return equaliser


def settled_sweep(position: float, rate: int = RATE) -> SweepFilter:
    sweep = SweepFilter(rate, MOST)
    sweep.move(position, 0)
    sweep.render(np.zeros((2, 4_000)))
    return sweep


def level_db(processor: KillEqualiser | SweepFilter, frequency: float, rate: int = RATE) -> float:
    """How loud a processor leaves a sine, once it has swung in."""
    time = np.arange(MOST) / rate
    samples = np.tile(np.sin(2 * np.pi * frequency * time), (2, 1))
    processor.render(samples)
    # A fit of sine and cosine sees nothing of other frequencies and of the beginning, which the window leaves out.
    window = np.hanning(MOST // 2)
    late = slice(MOST // 2, None)
    turns = np.exp(-2j * np.pi * frequency * time[late])
    return 20 * np.log10(2 * abs((samples[0, late] * window * turns).sum()) / window.sum() + 1e-12)


def crossover_by_scipy(samples: np.ndarray, rate: int) -> list[np.ndarray]:
    """Squares of Butterworth filters of order 3, the polarity such that they add up to an all-pass."""

    def squared(kind: str, frequency: float, x: np.ndarray) -> np.ndarray:
        sections = scipy.signal.butter(3, frequency, kind, fs=rate, output="sos")
        return scipy.signal.sosfilt(sections, scipy.signal.sosfilt(sections, x))

    low, rest = squared("low", 250, samples), -squared("high", 250, samples)
    return [
        squared("low", 2_500, low) - squared("high", 2_500, low),
        squared("low", 2_500, rest),
        -squared("high", 2_500, rest),
    ]


def sweep_by_scipy(samples: np.ndarray, position: float, rate: int) -> np.ndarray:
    closed = abs(position)
    start, end = (20_000, 80) if position < 0 else (20, 8_000)
    frequency = min(start * (end / start) ** closed, 0.45 * rate)
    warped = 2 * rate * np.tan(np.pi * frequency / rate)
    for q in (0.541, 1.307 + 0.9 * closed):
        top = [warped**2] if position < 0 else [1, 0, 0]
        b, a = scipy.signal.bilinear(top, [1, warped / q, warped**2], rate)
        samples = scipy.signal.sosfilt(np.concatenate([b, a])[None], samples)
    return samples


@RATES
@pytest.mark.parametrize("gains", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.3, 2.0, 0.7)])
def test_the_equaliser_is_what_scipy_computes(rate: int, gains: tuple[float, float, float]):
    samples = noise(5_000)
    bands = crossover_by_scipy(samples, rate)
    expected = sum(gain * band for gain, band in zip(gains, bands, strict=True))
    settled_equaliser(gains, rate).render(samples)
    assert np.abs(samples - expected).max() < FLOAT32_STEP


@RATES
@pytest.mark.parametrize("position", [-1.0, -0.5, -0.125, 0.125, 0.5, 1.0])
def test_the_sweep_is_what_scipy_computes(rate: int, position: float):
    samples = noise(5_000)
    expected = sweep_by_scipy(samples, position, rate)
    settled_sweep(position, rate).render(samples)
    assert np.abs(samples - expected).max() < FLOAT32_STEP


@RATES
@pytest.mark.parametrize(
    ("gains", "heard", "killed"),
    [
        ((0.0, 1.0, 1.0), 500, 125),
        ((1.0, 0.0, 0.0), 125, 500),
        ((1.0, 0.0, 1.0), 125, 790),
        ((1.0, 1.0, 0.0), 1_250, 5_000),
        ((0.0, 0.0, 1.0), 5_000, 1_250),
    ],
)
def test_a_killed_band_is_gone_an_octave_from_the_crossover(
    rate: int, gains: tuple[float, float, float], heard: float, killed: float
):
    assert level_db(settled_equaliser(gains, rate), heard, rate) == pytest.approx(0.0, abs=0.2)
    assert level_db(settled_equaliser(gains, rate), killed, rate) < -35


@pytest.mark.parametrize("frequency", [40, 180, 250, 400, 1_000, 2_500, 7_000, 15_000])
def test_the_bands_together_are_an_all_pass(frequency: float):
    # 1.0000001 instead of 1: a hair beside unity, or the equaliser would not be there at all.
    assert level_db(settled_equaliser((1.0000001, 1.0, 1.0)), frequency) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    ("position", "frequency", "least", "most"),
    [
        (-1, 40, -0.5, 2.0),
        (-1, 160, -25, -20),
        (-1, 640, -80, -68),
        (1, 16_000, -1, 2.5),
        (1, 4_000, -32, -20),
        (1, 1_000, -90, -70),
    ],
)
def test_the_sweep_closes(position: float, frequency: float, least: float, most: float):
    assert least < level_db(settled_sweep(position), frequency) < most


@pytest.mark.parametrize("make", [KillEqualiser, SweepFilter])
def test_at_rest_in_the_middle_it_is_idle(make: type[KillEqualiser] | type[SweepFilter]):
    assert make(RATE, MOST).idle


def test_the_equaliser_goes_when_all_bands_are_back():
    equaliser = settled_equaliser((0.0, 2.0, 0.0))
    for band in range(3):
        assert not equaliser.idle
        equaliser.move(band, 1.0, 100)
    equaliser.render(noise(FADED - 1))
    assert not equaliser.idle
    samples = noise(100)
    before = samples.copy()
    equaliser.render(samples)
    assert equaliser.idle
    assert (samples[:, 1:] == before[:, 1:]).all()


def test_the_sweep_goes_when_it_is_back_in_the_middle():
    sweep = settled_sweep(-0.7)
    sweep.move(0.0, 1_000)
    sweep.render(noise(999))
    assert not sweep.idle
    sweep.render(noise(1))
    assert sweep.idle


@pytest.mark.parametrize("position", [-0.8, 0.8])
def test_what_comes_back_answers_like_new(position: float):
    """What was heard before it was idle is not heard again, and it looks up its position at the same frames."""
    used, new = [(KillEqualiser(RATE, MOST), SweepFilter(RATE, MOST)) for _ in range(2)]
    for value, frames in ((position, 2_005), (0.0, 2_000)):
        used[0].move(0, 1.0 - abs(value), 100)
        used[1].move(value, 100)
        for each in used:
            each.render(noise(frames))
            assert each.idle == (value == 0.0)
    for one, other in zip(used, new, strict=True):
        for each in (one, other):
            each.move(*((0, 0.0) if isinstance(each, KillEqualiser) else (position,)), 240)
        found, expected = noise(1_000, 1), noise(1_000, 1)
        one.render(found)
        other.render(expected)
        assert (found == expected).all()


@pytest.mark.parametrize("processor", [settled_equaliser((0.0, 1.0, 2.0)), settled_sweep(-1.0), settled_sweep(1.0)])
def test_silence_becomes_silence_without_denormals(processor: KillEqualiser | SweepFilter):
    processor.render(noise(2_000))
    for _ in range(20):  # as blocks come; the slowest filter falls by 560 dB in less than a second
        processor.render(np.zeros((2, 4_096)))
    samples = np.zeros((2, 4_096))
    processor.render(samples)
    assert (samples == 0.0).all()


@pytest.mark.parametrize("processor", [settled_equaliser((4.0, 4.0, 4.0)), settled_sweep(-1.0), settled_sweep(1.0)])
def test_full_level_stays_bounded(processor: KillEqualiser | SweepFilter):
    for seed in range(20):
        samples = np.sign(noise(MOST, seed))
        processor.render(samples)
        assert np.abs(samples).max() < 40


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 1.0]) | st.floats(0, 4), st.integers(0, 900)),
        max_size=8,
    ),
    st.lists(st.integers(1, 120), min_size=1, max_size=40),
)
def test_pieces_do_not_matter(moves: list[tuple[int, float, int]], pieces: list[int]):
    outputs: list[np.ndarray] = []
    for sizes in ([MOST], pieces):
        equaliser, sweep = KillEqualiser(RATE, MOST), SweepFilter(RATE, MOST)
        samples = noise(300 * (len(moves) + 1))
        for index, (control, value, over) in enumerate([(0, 1.0, 0), *moves]):
            if control < 3:
                equaliser.move(control, value, over)
            else:
                sweep.move(value / 2 - 1, over)
            size, at, end = itertools.cycle(sizes), 300 * index, 300 * (index + 1)
            while at < end:
                part = samples[:, at : min(end, at + next(size))]
                # As the mixer does it: what is idle is left out.
                for each in (equaliser, sweep):
                    if not each.idle:
                        each.render(part)
                at += part.shape[1]
        outputs.append(samples)
    # −160 dB: other pieces round otherwise, and a filter near its resonance keeps that for a while.
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-8


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 5 * CHUNK), st.integers(0, 6)), min_size=1, max_size=8))
def test_chunks_equal_one_frame_at_a_time(calls: list[tuple[int, int]]):
    """Against the plain recursion, the coefficients changing at every call."""
    circuit = Circuit(3, RATE, 7)
    frequencies = np.geomspace(30, 20_000, 7)
    low, band = circuit.two_pole(circuit.one_pole(circuit.source, frequencies[::-1]), frequencies, 2.0)
    bank = chunk_matrices(circuit, low, low - 3 * band)
    outputs = np.stack([low, low - 3 * band], axis=1)
    fast, state = ChunkFilter(3, MOST), np.zeros((2, 3))
    for index, (frames, position) in enumerate(calls):
        samples, found, expected = noise(frames, index), np.empty((2, 2, frames)), np.empty((2, 2, frames))
        fast.run(bank[position], samples, found)
        for frame in range(frames):
            z = np.concatenate([state, samples[:, frame, None]], axis=1)  # [channels, states + input]
            expected[:, :, frame] = outputs[position] @ z.T
            state = z @ circuit.next[position].T
        assert found == pytest.approx(expected, abs=1e-10)
