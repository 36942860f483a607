"""Streaming overlap-add equals the plain one over the whole song, however the blocks fall."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revithion_stems.errors import RequestError
from revithion_stems.overlap_add import (
    OverlapAdd,
    reference_overlap_add,
    segment_count,
    stride_frames,
    triangle_window,
)

ROUNDING = 1e-6
"""Both sum the same float32 products in the same order; only BLAS-free elementwise code is involved."""


def network(mix: np.ndarray) -> np.ndarray:
    """A fake that depends on everything a real one does: on the context around a frame and the place in the segment."""
    place = np.linspace(0.5, 1.5, mix.shape[1], dtype=np.float32)
    behind = np.concatenate([np.zeros_like(mix[:, :1]), mix[:, :-1]], axis=1)
    ahead = np.concatenate([mix[:, 2:], np.zeros_like(mix[:, :2])], axis=1)[:, : mix.shape[1]]
    return np.stack([mix * place, behind + np.float32(0.25) * ahead, mix - mix.mean(axis=1, keepdims=True)])


@st.composite
def streams(draw):
    segment = draw(st.integers(2, 40))
    overlap = draw(st.floats(0, 0.9).filter(lambda o: int((1 - o) * segment) >= 1))
    frames = draw(st.integers(1, 150))
    cuts = sorted(draw(st.lists(st.integers(0, frames), max_size=8)))
    return segment, overlap, frames, [0, *cuts, frames], draw(st.booleans()), draw(st.integers(0, 30))


@given(stream=streams(), seed=st.integers(0, 99))
def test_streaming_equals_the_reference_for_any_blocks(stream, seed):
    segment, overlap, frames, cuts, fixed, lead = stream
    mix = np.random.default_rng(seed).uniform(-1, 1, (2, frames)).astype(np.float32)
    lengths: list[int] = []

    def run(chunk):
        lengths.append(chunk.shape[1])
        return network(chunk)

    adder = OverlapAdd(run, channels=2, stems=3, segment_frames=segment, overlap=overlap, fixed=fixed, lead=lead)
    out = [part for start, stop in itertools.pairwise(cuts) for part in adder.feed(mix[:, start:stop])]
    out += list(adder.finish())
    whole = np.concatenate([np.zeros((2, lead), np.float32), mix], axis=1)
    expected = reference_overlap_add(network, whole, stems=3, segment_frames=segment, overlap=overlap, fixed=fixed)
    np.testing.assert_allclose(np.concatenate(out, axis=2), expected[..., lead:], rtol=0, atol=ROUNDING)
    assert len(lengths) == segment_count(frames + lead, segment, overlap)
    assert max(lengths) <= segment
    if fixed:
        assert set(lengths) == {segment}


@given(stream=streams(), seed=st.integers(0, 99))
def test_block_sizes_change_no_bit(stream, seed):
    segment, overlap, frames, cuts, fixed, lead = stream
    mix = np.random.default_rng(seed).uniform(-1, 1, (1, frames)).astype(np.float32)

    def run(edges):
        adder = OverlapAdd(
            network, channels=1, stems=3, segment_frames=segment, overlap=overlap, fixed=fixed, lead=lead
        )
        parts = [p for start, stop in itertools.pairwise(edges) for p in adder.feed(mix[:, start:stop])]
        return np.concatenate([*parts, *adder.finish()], axis=2)

    assert np.array_equal(run(cuts), run([0, frames]))


@given(stream=streams())
def test_identity_comes_out_where_it_went_in(stream):
    segment, overlap, frames, cuts, fixed, lead = stream
    mix = np.arange(1, frames + 1, dtype=np.float32)[None]
    adder = OverlapAdd(
        lambda m: m[None], channels=1, stems=1, segment_frames=segment, overlap=overlap, fixed=fixed, lead=lead
    )
    parts = [p for start, stop in itertools.pairwise(cuts) for p in adder.feed(mix[:, start:stop])]
    out = np.concatenate([*parts, *adder.finish()], axis=2)
    np.testing.assert_allclose(out[0], mix, rtol=1e-5)


def test_what_waits_inside_does_not_grow_with_the_stream():
    adder = OverlapAdd(lambda m: m[None], channels=1, stems=1, segment_frames=100, overlap=0.25, fixed=True)
    done = 0
    for index in range(1, 501):
        done += sum(part.shape[2] for part in adder.feed(np.zeros((1, 64), np.float32)))
        assert index * 64 - done <= 100 + 64


@given(frames=st.integers(2, 2000))
def test_triangle_window(frames):
    window = triangle_window(frames)
    assert window.dtype == np.float32
    assert len(window) == frames
    assert window.max() == 1.0
    assert window.min() > 0.0
    peak = int(window.argmax())
    assert (np.diff(window[: peak + 1]) > 0).all()
    assert (np.diff(window[frames - frames // 2 :]) < 0).all()


def test_triangle_window_is_that_of_demucs():
    for frames in (5, 6, 343_980):
        half = np.concatenate([np.arange(1, frames // 2 + 1), np.arange(frames - frames // 2, 0, -1)])
        assert np.array_equal(triangle_window(frames), (half / half.max()).astype(np.float32))


@pytest.mark.parametrize(("segment", "overlap", "stride"), [(343_980, 0.25, 257_985), (100, 0.0, 100), (20, 0.95, 1)])
def test_stride(segment, overlap, stride):
    assert stride_frames(segment, overlap) == stride


@pytest.mark.parametrize(("segment", "overlap"), [(10, 0.95), (1, 0.5), (100, 1.0)])
def test_no_stride_left_is_an_error_that_says_so(segment, overlap):
    with pytest.raises(RequestError, match="no step between segments") as caught:
        stride_frames(segment, overlap)
    assert caught.value.code == "request.overlap"
    assert "fraction of a segment" in caught.value.hint
