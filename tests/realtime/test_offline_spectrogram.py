"""Training and the live preview see the same spectra and add them up to the same signal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from processor_laws import assert_close, music_like
from revithion_realtime.models.asymmetric_stft import Complex64, reference_stft
from revithion_stems.models.spectrogram import analyse, synthesise
from revithion_stems.models.stft_design import StftDesign

DESIGNS = [
    StftDesign(analysis_frames=256, synthesis_frames=64, hop_frames=16),
    StftDesign(analysis_frames=2_048, synthesis_frames=512, hop_frames=256),
    StftDesign(analysis_frames=512, synthesis_frames=512, hop_frames=256),
]


@pytest.mark.parametrize("design", DESIGNS, ids=str)
@pytest.mark.parametrize("frames", [5_120, 5_001])
def test_whole_signals_give_what_hops_give(design: StftDesign, frames: int) -> None:
    """Columns of the mix, and signals of columns that were changed, as the plain form of the live preview has them."""
    samples = music_like(frames, 44_100)
    low = np.linspace(1, 0, design.bins, dtype=np.float32)
    seen: list[Complex64] = []

    def two_bands(spectrum: Complex64) -> Complex64:
        seen.append(spectrum)
        return np.stack([spectrum * low, spectrum * (1 - low)])

    expected = reference_stft(design, two_bands, samples, stems=2)
    columns = analyse(design, torch.from_numpy(samples))  # [2, T, F]
    assert len(seen) >= columns.shape[1]
    live = np.stack(seen[: columns.shape[1]]).view(np.float32)  # real and imaginary parts side by side
    assert_close(np.ascontiguousarray(columns.numpy().transpose(1, 0, 2)).view(np.float32), live, 2e-4)
    masks = torch.from_numpy(np.stack([low, 1 - low]))[:, None, None]  # [stems, 1, 1, F]
    ours = synthesise(design, masks * columns, frames).numpy()
    whole = frames - (design.synthesis_frames - design.hop_frames)
    assert_close(ours[..., :whole], expected[..., :whole], 2e-6)
