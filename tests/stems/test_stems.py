"""The exact null: stems on a common grid add up to their source in float32, in any order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from revithion_stems.audio import AudioBuffer
from revithion_stems.errors import RequestError
from revithion_stems.stems import NullMeter, StemSet, close_null

GRIDS = st.sampled_from([15, 23, 24])
# Sums of eight values must themselves be float32; api.separate refuses sources beyond MAX_PEAK for that.
FINITE = st.floats(-(2.0**120), 2.0**120, width=32, allow_subnormal=True)
QUIET = st.floats(-0.125, 0.125, width=32, allow_subnormal=True)
AUDIO = st.floats(-2, 2, width=32, allow_subnormal=True)


@st.composite
def cases(draw, elements=FINITE, folding=None):
    stems, channels, frames = draw(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 5)))
    estimates = draw(hnp.arrays(np.float32, (stems, channels, frames), elements=elements))
    source = draw(hnp.arrays(np.float32, (channels, frames), elements=elements))
    fold = draw(st.integers(0, stems - 1)) if folding or (folding is None and draw(st.booleans())) else None
    return estimates, source, fold, draw(GRIDS)


def sums_in_many_orders(parts: np.ndarray):
    """float32 sums as a mixer forms them: every order of up to four parts, some orders of more, and in pairs."""
    orders = itertools.islice(itertools.permutations(range(len(parts))), 30)
    for order in orders:
        total = np.zeros_like(parts[0])
        for index in order:
            total = total + parts[index]
        yield total
    halves = len(parts) // 2
    yield parts[:halves].sum(axis=0, dtype=np.float32) + parts[halves:].sum(axis=0, dtype=np.float32)


@given(case=cases(folding=True))
def test_folded_stems_add_up_alike_in_any_order_and_the_residual_restores_the_source(case):
    estimates, source, fold, grid_bits = case
    stems, residual = close_null(estimates, source, fold, grid_bits)
    assert stems.dtype == residual.dtype == np.float32
    assert stems.shape == estimates.shape
    totals = list(sums_in_many_orders(stems))
    for total in totals:
        assert np.array_equal(total, totals[0])
        assert np.array_equal(total + residual, source)
    # Half a step of the grid; where magnitudes need a coarser one, it is 2^-24 of their sum at most.
    exact = stems.astype(np.float64)
    step = np.maximum(2.0**-grid_bits, np.abs(exact).sum(axis=0) * 2.0**-22)
    assert (np.abs(residual) <= step / 2).all()


@given(case=cases(folding=False))
def test_plain_stems_and_residual_add_up_to_what_of_the_source_is_on_the_grid(case):
    estimates, source, _, grid_bits = case
    stems, residual = close_null(estimates, source, None, grid_bits)
    exact = stems.astype(np.float64)
    magnitude = np.abs(exact).sum(axis=0) + np.abs(residual.astype(np.float64))
    step = np.maximum(2.0**-grid_bits, magnitude * 2.0**-22)
    assert (np.abs(exact.sum(axis=0) + residual - source) <= step / 2).all()
    for total in sums_in_many_orders(stems):
        assert np.array_equal(total, exact.sum(axis=0).astype(np.float32))


@given(data=st.data(), bits=st.sampled_from([15, 23]), folding=st.booleans())
def test_integer_sources_are_exact_in_any_order_with_nothing_left_over(data, bits, folding):
    # 24 bits of float32 hold a 16-bit grid up to magnitudes of 512 in all, but a 24-bit grid only up to 2.
    estimates, source, fold, _ = data.draw(cases(elements=AUDIO if bits == 15 else QUIET, folding=folding))
    source = (np.rint(np.clip(source, -1, 1 - 2.0**-bits) * 2.0**bits) / 2.0**bits).astype(np.float32)
    for grid_bits in (bits, 24):
        stems, residual = close_null(estimates, source, fold, grid_bits)
        parts = stems if folding else np.concatenate([stems, residual[None]])
        for total in sums_in_many_orders(parts):
            assert np.array_equal(total, source)
        if folding:
            assert not residual.any()


@given(case=cases(elements=AUDIO))
def test_estimates_move_by_no_more_than_half_a_step(case):
    estimates, source, fold, grid_bits = case
    stems, _ = close_null(estimates, source, fold, grid_bits)
    others = [index for index in range(len(stems)) if index != fold]
    bound = np.abs(estimates.astype(np.float64)).sum(axis=0) + np.abs(source) + np.abs(estimates.sum(axis=0))
    step = np.maximum(2.0**-grid_bits, bound * 2.0**-22)
    assert (np.abs(stems[others].astype(np.float64) - estimates[others]) <= step / 2).all()


@pytest.mark.parametrize("count", [2, 3, 4, 6])
@pytest.mark.parametrize("folding", [True, False])
def test_magnitudes_that_just_fill_24_bits(count, folding):
    """Rounding up may take their sum past 2^24 steps, where an odd number of steps has no float32 any more."""
    rng = np.random.default_rng(count)
    frames = 100_000
    estimates = rng.dirichlet(np.ones(count), frames).T[:, None] * (1 - rng.uniform(0, 8, frames) * 2.0**-24)
    estimates *= rng.choice([-1, 1], frames)
    estimates = estimates.astype(np.float32)
    source = estimates.sum(axis=0, dtype=np.float64).astype(np.float32)
    stems, residual = close_null(estimates, source, 0 if folding else None, 24)
    assert (np.abs(stems.astype(np.float64)).sum(axis=0) <= 1).any()
    exact = stems.astype(np.float64).sum(axis=0)
    for total in sums_in_many_orders(stems):
        assert np.array_equal(total.astype(np.float64), exact)
    if folding:
        assert np.array_equal(exact.astype(np.float32) + residual, source)


def test_arguments_are_not_changed():
    estimates = np.full((2, 1, 3), 0.1, np.float32)
    source = np.full((1, 3), 0.3, np.float32)
    close_null(estimates, source, 1, 15)
    assert (estimates == np.float32(0.1)).all()
    assert (source == np.float32(0.3)).all()


def test_a_plain_sum_of_float_stems_depends_on_the_order():
    """Why there is a grid: without it the law above fails."""
    parts = np.array([1.0, 2.0**-24, 2.0**-24], np.float32)[:, None]
    assert (parts[0] + parts[1]) + parts[2] != parts[0] + (parts[1] + parts[2])


def stem_set(vocals, other, residual, rate=44100):
    def buffer(samples, sample_rate=44100):
        return AudioBuffer(samples=np.array(samples, np.float32)[None], sample_rate=sample_rate)

    return StemSet(
        stems={"vocals": buffer(vocals), "other": buffer(other, rate)},
        residual=buffer(residual),
        gain_db=0.0,
        model="m",
        licence="l",
    )


def test_stem_set_adds_up_and_measures_its_null():
    stems = stem_set([0.5, 0.0], [0.25, -0.5], [0.0, 0.125])
    mix = AudioBuffer(samples=np.array([[0.75, -0.375]], np.float32), sample_rate=44100)
    assert stems.total().tolist() == mix.samples.tolist()
    assert stems.total(with_residual=False).tolist() == [[0.75, -0.5]]
    assert stems.null_db(mix) == -math.inf
    assert stems["vocals"].samples.tolist() == [[0.5, 0.0]]
    louder = AudioBuffer(samples=mix.samples * np.float32(2), sample_rate=44100)
    assert stems.null_db(louder) == pytest.approx(20 * math.log10(0.5))


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda: stem_set([0.0], [0.0, 0.0], [0.0]), "stems.shape"),
        (lambda: stem_set([0.0], [0.0], [0.0], rate=48000), "stems.shape"),
        (lambda: stem_set([0.0], [0.0], [0.0])["drums"], "stems.unknown"),
        (
            lambda: stem_set([0.0], [0.0], [0.0]).null_db(
                AudioBuffer(samples=np.zeros((1, 2), np.float32), sample_rate=44100)
            ),
            "stems.shape",
        ),
        (
            lambda: stem_set([0.0], [0.0], [0.0]).null_db(
                AudioBuffer(samples=np.zeros((1, 1), np.float32), sample_rate=8000)
            ),
            "stems.shape",
        ),
    ],
)
def test_stem_set_refuses_what_does_not_belong_together(build, code):
    with pytest.raises(RequestError) as caught:
        build()
    assert caught.value.code == code
    assert caught.value.hint


def test_null_meter():
    meter = NullMeter()
    assert meter.null_db == -math.inf
    ones = np.ones((1, 4), np.float32)
    meter.add(ones, ones)
    assert meter.null_db == -math.inf
    meter.add(ones * np.float32(1.5), ones)
    assert meter.null_db == pytest.approx(10 * math.log10(0.25 * 4 / 8))
    silent = NullMeter()
    silent.add(ones, ones * 0)
    assert silent.null_db == math.inf
