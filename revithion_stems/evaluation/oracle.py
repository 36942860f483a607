"""The ceiling: ideal ratio masks on the preview's spectrogram, computed from the true stems.

mask of a stem = |its bin| / Σ |that bin of all stems|, applied to the mix with the mix's own phase. No network with
such masks and windows can be expected above it, by any amount of training.

Source: Liutkus, Badeau: Generalized Wiener filtering with fractional power spectrograms (ICASSP 2015), α = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch

from revithion_stems.audio import Float32
from revithion_stems.models.causal_preview import CausalPreviewConfig
from revithion_stems.models.spectrogram import analyse, synthesise

_DESIGN: Final = CausalPreviewConfig().design
_SPAN_FRAMES: Final = 1024 * _DESIGN.hop_frames
"""Frames per step: six seconds, some 150 MB of spectra for four stems."""

_TINY: Final = 1e-12

SpanReader = Callable[[str, int, int], Float32]
"""Stem, first frame, frames → float32 ``[channels, frames]``."""


def oracle_stems(
    read: SpanReader, stems: Sequence[str], frames: int, *, span_frames: int = _SPAN_FRAMES
) -> dict[str, Float32]:
    """Stems by ideal ratio masks. Memory beyond the result does not grow with the length.

    Args:
        read: Gives the true stems.
        stems: Whose sum is the mix.
        frames: Length of all.
        span_frames: Frames per step, a multiple of the hop. The result does not depend on it.

    Returns:
        By stem, float32 ``[channels, frames]``; they sum to the mix.
    """
    results: dict[str, Float32] = {}
    for start in range(0, frames, span_frames):
        stop = min(start + span_frames, frames)
        # The columns that make these frames see N frames back from the first, and come until M after the last.
        first, last = max(0, start - _DESIGN.analysis_frames), min(frames, stop + _DESIGN.synthesis_frames)
        truth = torch.from_numpy(np.stack([read(stem, first, last - first) for stem in stems]))  # [S, C, n]
        # Zeros after the end let the last frames be completed.
        truth = torch.nn.functional.pad(truth, (0, _DESIGN.synthesis_frames if last == frames else 0))
        spectra = analyse(_DESIGN, truth)  # [S, C, T, F]
        magnitudes = spectra.abs()
        masks = magnitudes / (magnitudes.sum(dim=0, keepdim=True) + _TINY)
        parts = synthesise(_DESIGN, masks * spectra.sum(dim=0), truth.shape[-1])  # [S, C, n]
        for stem, part in zip(stems, parts[..., start - first : stop - first].numpy(), strict=True):
            result = results.setdefault(stem, np.empty((part.shape[0], frames), np.float32))
            result[:, start:stop] = part
    return results
