"""The asymmetric spectrogram in PyTorch: whole signals at once, as training and the offline engine need it.

`reference_stft` of the live preview computes the same plainly, hop by hop; tests compare them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from revithion_stems.models.stft_design import StftDesign


def analyse(design: StftDesign, samples: Tensor) -> Tensor:
    """Columns of signals. Column t sees the ``analysis_frames`` that end with frame ``(t + 1)·hop``; zeros come first.

    Args:
        design: Lengths and windows.
        samples: float32 ``[..., frames]``.

    Returns:
        complex64 ``[..., T, F]``, T = frames / hop rounded up.
    """
    hop = design.hop_frames
    return columns_of(
        design, torch.nn.functional.pad(samples, (design.analysis_frames - hop, -samples.shape[-1] % hop))
    )


def columns_first(design: StftDesign, samples: Tensor) -> Tensor:
    """As :func:`analyse`, laid out column by column, as causal networks take them: ``[B, …, n]`` → ``[B, T, …, F]``."""
    hop = design.hop_frames
    padded = torch.nn.functional.pad(samples, (design.analysis_frames - hop, -samples.shape[-1] % hop))
    parts = padded.unfold(-1, design.analysis_frames, hop).movedim(-2, 1)  # [B, T, …, N]
    return torch.fft.rfft(parts * torch.from_numpy(design.analysis).to(samples))


def columns_of(design: StftDesign, samples: Tensor) -> Tensor:
    """As :func:`analyse`, of samples that begin ``analysis_frames − hop`` before the first hop; T whole hops follow."""
    window = torch.from_numpy(design.analysis).to(samples)
    return torch.fft.rfft(samples.unfold(-1, design.analysis_frames, design.hop_frames) * window)


def synthesise(design: StftDesign, spectrum: Tensor, frames: int) -> Tensor:
    """Signals of columns, without delay: frame 0 is that of :func:`analyse`.

    The newest ``synthesis_frames − hop`` frames lack columns that come later; they fade out.

    Args:
        design: Lengths and windows.
        spectrum: complex64 ``[..., T, F]``.
        frames: Of the signals.

    Returns:
        float32 ``[..., frames]``.
    """
    lead = design.synthesis_frames - design.hop_frames
    return overlapped(design, spectrum)[..., lead : lead + frames]


def overlapped(design: StftDesign, spectrum: Tensor) -> Tensor:
    """All that columns add to: as :func:`synthesise`, from ``synthesis_frames − hop`` frames before frame 0 on.

    Returns:
        float32 ``[..., synthesis_frames − hop + T·hop]``.
    """
    m, hop = design.synthesis_frames, design.hop_frames
    parts = torch.fft.irfft(spectrum, design.analysis_frames)[..., -m:]  # [..., T, M]
    parts = parts * torch.from_numpy(design.synthesis).to(parts)
    late = m // hop - 1
    out = torch.nn.functional.pad(parts[..., :hop], (0, 0, 0, late))  # hop `index` of column t goes to t + index
    for index in range(1, late + 1):
        piece = parts[..., index * hop : (index + 1) * hop]  # [..., T, hop]
        out = out + torch.nn.functional.pad(piece, (0, 0, index, late - index))
    return out.flatten(-2)
