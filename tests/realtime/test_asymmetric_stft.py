"""The asymmetric STFT: it reconstructs what isn't changed, delays by what it says, and equals its plain form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor_laws import BLOCK_LISTS, assert_close, check_laws, music_like, stream
from revithion_realtime.models.asymmetric_stft import (
    Complex64,
    SpectrumFunction,
    StftDesign,
    StreamingStft,
    reference_stft,
)
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError

SMALL = StftDesign(analysis_frames=256, synthesis_frames=64, hop_frames=16)
DESIGNS = [
    SMALL,
    StftDesign(analysis_frames=2_048, synthesis_frames=512, hop_frames=256),
    StftDesign(analysis_frames=4_096, synthesis_frames=512, hop_frames=128),
    StftDesign(analysis_frames=512, synthesis_frames=512, hop_frames=256),
]


def two_bands(spectrum: Complex64) -> Complex64:
    low = np.linspace(1, 0, spectrum.shape[-1], dtype=np.float32)
    return np.stack([spectrum * low, spectrum * (1 - low)])


class Bands:
    """A processor of two bands."""

    name = "bands"
    stems = ("low", "high")

    def __init__(self, design: StftDesign) -> None:
        self.latency_frames = design.latency_frames
        self.hop_frames = design.hop_frames
        self._stft = StreamingStft(design, two_bands, stems=2)

    def prepare(self, sample_rate: int) -> None:
        self.reset()

    def process(self, block: Float32, out: Float32) -> None:
        self._stft.process(block, out)

    def reset(self) -> None:
        self._stft.reset()


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_the_product_of_the_windows_adds_up_to_one(design: StftDesign) -> None:
    m, hop = design.synthesis_frames, design.hop_frames
    product = design.analysis[-m:].astype(np.float64) * design.synthesis
    assert_close(product.reshape(m // hop, hop).sum(axis=0), np.ones(hop), 1e-6)


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_the_analysis_window_is_long_and_falls_fast(design: StftDesign) -> None:
    fall = design.synthesis_frames // 2
    assert np.argmax(design.analysis) == design.analysis_frames - fall
    assert design.analysis.min() >= 0


@given(half=st.integers(1, 64), parts=st.integers(1, 8), longer=st.integers(0, 300))
@settings(max_examples=30, deadline=None)
def test_any_valid_lengths_reconstruct(half: int, parts: int, longer: int) -> None:
    hop = half
    m = 2 * half * parts
    design = StftDesign(analysis_frames=m + 2 * longer, synthesis_frames=m, hop_frames=hop)
    samples = music_like(3 * m + 100, 44_100)
    same = reference_stft(design, lambda spectrum: spectrum[None], samples, stems=1)
    assert_close(same[0], samples, 2e-6)


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_it_keeps_the_laws(design: StftDesign) -> None:
    check_laws(lambda: Bands(design), 44_100, examples=5)


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_the_stream_equals_the_plain_form(design: StftDesign) -> None:
    samples = music_like(6_000, 44_100)
    expected = reference_stft(design, two_bands, samples, stems=2)
    latency = design.latency_frames
    out = stream(Bands(design), samples, [1, 77, 300])
    assert_close(out[:, :, latency:], expected[:, :, : 6_000 - latency], 1e-6)


@given(blocks=BLOCK_LISTS)
@settings(max_examples=10, deadline=None)
def test_the_function_sees_the_same_spectra_whatever_the_blocks(blocks: list[int]) -> None:
    samples = music_like(2_000, 44_100)

    def spectra_of(sizes: list[int]) -> list[Complex64]:
        seen: list[Complex64] = []

        def keep(spectrum: Complex64) -> Complex64:
            seen.append(spectrum.copy())
            return spectrum[None]

        stft = StreamingStft(SMALL, keep, stems=1)
        at, rest = 0, iter(sizes)
        while at < samples.shape[1]:
            block = samples[:, at : at + next(rest, 500)]
            stft.process(block, np.empty((1, *block.shape), np.float32))
            at += block.shape[1]
        return seen

    expected = spectra_of([2_000])
    assert len(expected) == 2_000 // SMALL.hop_frames
    assert np.array_equal(np.stack(spectra_of(blocks)), np.stack(expected))


def test_spectra_are_of_single_precision() -> None:
    kinds: set[np.dtype[np.complexfloating]] = set()

    def look(spectrum: Complex64) -> Complex64:
        kinds.add(spectrum.dtype)
        return spectrum[None]

    separate: SpectrumFunction = look
    reference_stft(SMALL, separate, music_like(200, 44_100), stems=1)
    assert kinds == {np.dtype(np.complex64)}


@pytest.mark.parametrize(
    ("analysis", "synthesis", "hop"), [(256, 65, 16), (255, 64, 16), (64, 128, 16), (256, 64, 48), (256, 64, 0)]
)
def test_lengths_that_do_not_reconstruct_are_refused(analysis: int, synthesis: int, hop: int) -> None:
    with pytest.raises(LiveError, match=f"{analysis} frames with {synthesis} to be heard and a hop of {hop}"):
        StftDesign(analysis_frames=analysis, synthesis_frames=synthesis, hop_frames=hop)
