"""The asymmetric spectrogram of whole signals: three ways to lay it out, and its inverse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_stems.models.spectrogram import analyse, columns_first, columns_of, overlapped, synthesise
from revithion_stems.models.stft_design import StftDesign

SMALL = StftDesign(analysis_frames=256, synthesis_frames=64, hop_frames=16)
DESIGNS = [
    SMALL,
    StftDesign(analysis_frames=256, synthesis_frames=128, hop_frames=64),
    StftDesign(analysis_frames=128, synthesis_frames=128, hop_frames=32),
    StftDesign(analysis_frames=2_048, synthesis_frames=512, hop_frames=256),
]
CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 3e-6}
"""Float32 transforms of samples in −1…1 there and back; the largest that these designs were off by is 1.4e-6."""


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("design", DESIGNS, ids=str)
@pytest.mark.parametrize("frames", [1, 999, 1_024])
def test_the_three_layouts_hold_the_same(design: StftDesign, frames: int) -> None:
    samples = noise(2, 3, 2, frames)
    spectrum = analyse(design, samples)  # [B, S, 2, T, F]
    columns = -(-frames // design.hop_frames)
    assert spectrum.shape == (2, 3, 2, columns, design.bins)
    assert torch.equal(columns_first(design, samples), spectrum.permute(0, 3, 1, 2, 4))
    before = samples.new_zeros(2, 3, 2, design.analysis_frames - design.hop_frames)
    after = samples.new_zeros(2, 3, 2, columns * design.hop_frames - frames)
    assert torch.equal(columns_of(design, torch.cat((before, samples, after), -1)), spectrum)


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_a_column_sees_what_ends_with_its_hop(design: StftDesign) -> None:
    n, hop, frames = design.analysis_frames, design.hop_frames, 4 * design.analysis_frames
    for at in (0, hop - 1, hop, frames // 2 + 1):
        pulse = torch.zeros(frames)
        pulse[at] = 1.0
        heard = analyse(design, pulse).abs().amax(-1)
        for column in range(len(heard)):
            place = n - (column + 1) * hop + at  # of the pulse in what column t sees
            seen = float(design.analysis[place]) if 0 <= place < n else 0.0
            assert float(heard[column]) == pytest.approx(seen, abs=1e-6)


@given(
    design=st.sampled_from(DESIGNS[:3]),
    frames=st.integers(1, 1_500),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_what_is_not_changed_comes_back_in_its_place(design: StftDesign, frames: int, seed: int) -> None:
    samples = noise(2, frames, seed=seed)
    back = synthesise(design, analyse(design, samples), frames)
    assert back.shape == samples.shape
    whole = max(0, frames - (design.synthesis_frames - design.hop_frames))
    torch.testing.assert_close(back[:, :whole], samples[:, :whole], **CLOSE)
    # The rest fades out: nothing is louder than it was by more than the windows' ripple.
    assert float(back.abs().max()) <= 1.05 * float(samples.abs().max()) + 1e-5


def test_the_end_is_whole_too_when_as_much_silence_follows() -> None:
    for design in DESIGNS:
        samples = noise(2, 1_000)
        late = design.synthesis_frames - design.hop_frames
        padded = torch.nn.functional.pad(samples, (0, late))
        back = synthesise(design, analyse(design, padded), 1_000)
        torch.testing.assert_close(back, samples, **CLOSE)


@given(cut=st.integers(1, 11), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_parts_of_a_spectrogram_add_up_to_the_whole(cut: int, seed: int) -> None:
    hop, lead = SMALL.hop_frames, SMALL.synthesis_frames - SMALL.hop_frames
    spectrum = analyse(SMALL, noise(2, 12 * hop, seed=seed))
    whole = overlapped(SMALL, spectrum)
    assert whole.shape == (2, lead + 12 * hop)
    parts = torch.zeros_like(whole)
    parts[:, : lead + cut * hop] += overlapped(SMALL, spectrum[:, :cut])
    parts[:, cut * hop :] += overlapped(SMALL, spectrum[:, cut:])
    torch.testing.assert_close(parts, whole, **CLOSE)


def test_both_ways_are_linear_and_have_gradients() -> None:
    a, b = noise(2, 300), noise(2, 300, seed=1)
    torch.testing.assert_close(
        analyse(SMALL, a + 2 * b), analyse(SMALL, a) + 2 * analyse(SMALL, b), rtol=1e-5, atol=1e-4
    )
    a.requires_grad_()
    (synthesise(SMALL, analyse(SMALL, a), 300) * b).sum().backward()
    assert a.grad is not None
    torch.testing.assert_close(a.grad[:, :200], b[:, :200], rtol=0, atol=1e-5)  # the transpose of the identity
