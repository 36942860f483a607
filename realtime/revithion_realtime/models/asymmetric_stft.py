"""A spectrum with fine frequencies and a short delay, streaming.

The windows are those of :mod:`revithion_stems.models.stft_design`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from revithion_realtime.models.hop_blocks import HopBlocks
from revithion_stems.audio import Float32
from revithion_stems.models.stft_design import StftDesign

Complex64 = npt.NDArray[np.complex64]

SpectrumFunction = Callable[[Complex64], Complex64]
"""Spectrum of the mix complex64 ``[channels, bins]`` → those of the stems ``[stems, channels, bins]``, once per hop."""


class StreamingStft:
    """Takes blocks of any size, runs a function on the spectrum of each hop, and gives back as many frames.

    Output frame k belongs to input frame ``k − design.latency_frames``. One thread at a time.

    Args:
        design: Lengths and windows.
        separate: Called once per hop, in order; what it returns is not kept.
        stems: That it returns.
    """

    def __init__(self, design: StftDesign, separate: SpectrumFunction, *, stems: int) -> None:
        self._design = design
        self._separate = separate
        self._input = np.zeros((2, design.analysis_frames), np.float32)  # the newest frame last
        self._sum = np.zeros((stems, 2, design.synthesis_frames), np.float32)
        self._blocks = HopBlocks(self._step, stems=stems, hop_frames=design.hop_frames)

    def process(self, block: Float32, out: Float32) -> None:
        """Takes ``[2, n]``, and fills ``[stems, 2, n]``."""
        self._blocks.process(block, out)

    def reset(self) -> None:
        """Forgets all input; what ``separate`` remembers is its owner's."""
        self._input.fill(0.0)
        self._sum.fill(0.0)
        self._blocks.reset()

    def _step(self, gathered: Float32, ready: Float32) -> None:
        design = self._design
        hop = design.hop_frames
        self._input[:, :-hop] = self._input[:, hop:]
        self._input[:, -hop:] = gathered
        self._sum += _one_hop(design, self._input, self._separate)
        # The next hop begins to add R frames later: the first R are whole.
        ready[...] = self._sum[..., :hop]
        self._sum[..., :-hop] = self._sum[..., hop:]
        self._sum[..., -hop:] = 0.0


def reference_stft(design: StftDesign, separate: SpectrumFunction, samples: Float32, *, stems: int) -> Float32:
    """What :class:`StreamingStft` computes, without the delay and written plainly over a whole signal; for tests.

    Args:
        design: Lengths and windows.
        separate: As there; called in the same order.
        samples: float32 ``[channels, frames]``.
        stems: That ``separate`` returns.

    Returns:
        float32 ``[stems, channels, frames]``.
    """
    channels, frames = samples.shape
    n, m, hop = design.analysis_frames, design.synthesis_frames, design.hop_frames
    padded = np.concatenate([np.zeros((channels, n), np.float32), samples, np.zeros((channels, m), np.float32)], axis=1)
    out = np.zeros((stems, channels, frames + n + m), np.float64)
    for end in range(n + hop, frames + n + m + 1, hop):
        out[..., end - m : end] += _one_hop(design, padded[:, end - n : end], separate)
    return out[..., n : n + frames].astype(np.float32)


def _one_hop(design: StftDesign, frames: Float32, separate: SpectrumFunction) -> Float32:
    spectrum = np.fft.rfft(frames * design.analysis).astype(np.complex64, copy=False)  # it is; said for type checkers
    parts = np.fft.irfft(separate(spectrum), design.analysis_frames).astype(np.float32, copy=False)
    return parts[..., -design.synthesis_frames :] * design.synthesis
