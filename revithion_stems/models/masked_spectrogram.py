"""What the offline networks have in common: a spectrum of the mix, its bands, and complex masks that make stems of it.

Letters of shapes: B batch, C channels of audio, F bins, T columns, K bands, W bins of one band, S stems.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revithion_stems.models.bands import Bands


def spectrum_of(samples: Tensor, fft_frames: int, hop_frames: int) -> Tensor:
    """Spectra under a Hann window, centred on multiples of the hop; the signal is mirrored at its ends.

    Args:
        samples: float ``[B, C, frames]``.
        fft_frames: Of the transform and its window.
        hop_frames: Between columns.

    Returns:
        complex64 ``[B, C, F, T]``, T = 1 + frames // hop, of signals shorter than a transform that of a transform.
    """
    b, c, frames = samples.shape
    samples = F.pad(samples.float(), (0, max(fft_frames - frames, 0)))  # mirrors need more than half a transform
    window = torch.hann_window(fft_frames, device=samples.device)
    spectrum = torch.stft(
        samples.flatten(0, 1), fft_frames, hop_frames, window=window, return_complex=True
    )  # [B·C, F, T]
    return spectrum.unflatten(0, (b, c))


def samples_of(spectrum: Tensor, fft_frames: int, hop_frames: int, frames: int) -> Tensor:
    """Signals of spectra: the inverse of :func:`spectrum_of`.

    Args:
        spectrum: complex64 ``[..., F, T]``.
        fft_frames: Of the transform and its window.
        hop_frames: Between columns.
        frames: Of the signals.

    Returns:
        float32 ``[..., frames]``.
    """
    window = torch.hann_window(fft_frames, device=spectrum.device)
    length = max(frames, fft_frames)
    samples = torch.istft(spectrum.flatten(0, -3), fft_frames, hop_frames, window=window, length=length)  # […, length]
    return samples[:, :frames].unflatten(0, spectrum.shape[:-2])


class BandMap(nn.Module):
    """Which bins each band holds. It has no parameters.

    Args:
        bands: A division that covers all bins.
    """

    indices: Tensor
    holders: Tensor

    def __init__(self, bands: Bands) -> None:
        super().__init__()
        self.bands = bands
        bins = max(end for _, end in bands)
        indices = np.concatenate([np.arange(first, end) for first, end in bands])
        holders = np.bincount(indices, minlength=bins)
        self.overlapping = len(indices) != bins
        # They follow from the division, so that a checkpoint needn't have them.
        self.register_buffer("indices", torch.tensor(indices), persistent=False)  # [ΣW]
        self.register_buffer("holders", torch.tensor(holders).float(), persistent=False)  # [F]

    def split(self, spectrum: Tensor) -> list[Tensor]:
        """Real and imaginary parts of each band's bins, of both channels side by side.

        Args:
            spectrum: complex64 ``[B, C, F, T]``.

        Returns:
            Per band float32 ``[B, T, W·C·2]``; bins vary slowest, parts fastest.
        """
        parts = torch.view_as_real(spectrum).permute(0, 3, 2, 1, 4)  # [B, T, F, C, 2]
        return [parts[:, :, first:end].flatten(2) for first, end in self.bands]

    def join(self, masks: Tensor, channels: int) -> Tensor:
        """Masks of all bins; where bands overlap, the mean of theirs.

        Args:
            masks: Of each band's bins in turn, each as :meth:`split` gives them: ``[B, S, T, ΣW·C·2]``.
            channels: C.

        Returns:
            complex64 ``[B, S, C, F, T]``.
        """
        joined = masks.float().unflatten(3, (-1, channels, 2))  # [B, S, T, ΣW, C, 2]
        if self.overlapping:
            total = joined.new_zeros(*joined.shape[:3], len(self.holders), channels, 2)  # [B, S, T, F, C, 2]
            joined = total.index_add(3, self.indices, joined) / self.holders[:, None, None]
        return torch.view_as_complex(joined.contiguous()).permute(0, 1, 4, 3, 2)  # [B, S, C, F, T]
