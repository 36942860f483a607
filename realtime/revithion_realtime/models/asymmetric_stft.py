"""A spectrum with fine frequencies and a short delay: long analysis windows, short synthesis windows, streaming.

The delay of a chain STFT → masks → iSTFT is the length of what is overlap-added, not of what is analysed. So each hop
looks at ``analysis_frames`` of the past through a window that rises slowly and falls fast, and only the last
``synthesis_frames`` of each inverse transform are used.

Let N be the analysis length, M the synthesis length, R the hop, and count a window from its oldest frame. Both windows
meet in the last M frames, where their product must be a Hann window of M frames, hann(m) = sin²(πm/M), since copies of
it shifted by R sum to the constant M/2R wherever R divides M/2. With K = N − M/2:

    analysis(n)  = sin(πn/2K)                    n < K        a slow rise
                 = sin(π(n − N + M)/M)           n ≥ K        the second half of a sine of M frames
    synthesis(n) = 2R/M · hann(n − N + M)/analysis(n)         n ≥ N − M, zero before

which in the second half is 2R/M times the same sine; in the first half the analysis window is near 1 for M ≪ N, so that
the quotient stays bounded.

Source: Mauler, Martin: A low delay, variable resolution, perfect reconstruction spectral analysis-synthesis system for
speech enhancement (EUSIPCO 2007); Wood, Rickard: Unsupervised low latency speech enhancement with RT-GCC-NMF (2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from revithion_realtime.models.hop_blocks import HopBlocks
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError

Complex64 = npt.NDArray[np.complex64]

SpectrumFunction = Callable[[Complex64], Complex64]
"""Spectrum of the mix complex64 ``[channels, bins]`` → those of the stems ``[stems, channels, bins]``, once per hop."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StftDesign:
    """Lengths and windows of an asymmetric STFT.

    Attributes:
        analysis_frames: N, what a spectrum sees; even.
        synthesis_frames: M, what of it is heard: the delay; even, at most N.
        hop_frames: R; divides M/2.
        analysis: float32 ``[N]``.
        synthesis: float32 ``[M]``, for the last M frames of an inverse transform.

    Raises:
        LiveError: ``live.model``: lengths that don't reconstruct.
    """

    analysis_frames: int
    synthesis_frames: int
    hop_frames: int
    analysis: Float32 = field(init=False, repr=False)
    synthesis: Float32 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n, m, hop = self.analysis_frames, self.synthesis_frames, self.hop_frames
        if n % 2 or m % 2 or not 2 <= m <= n or hop < 1 or (m // 2) % hop:
            raise LiveError(
                f"an STFT of {n} frames with {m} to be heard and a hop of {hop} doesn't reconstruct its input",
                hint="Both lengths must be even, the second not the longer one, and the hop must divide half of it.",
                code="live.model",
            )
        k = n - m // 2
        sine = np.sin(np.pi * np.arange(m) / m)
        analysis = np.concatenate([np.sin(np.pi * np.arange(k) / (2 * k)), sine[m // 2 :]])
        # For M = N both windows begin with 0/0, whose limit under Hann is 0.
        synthesis = 2 * hop / m * np.divide(sine**2, analysis[n - m :], out=np.zeros(m), where=sine > 0)
        object.__setattr__(self, "analysis", analysis.astype(np.float32))
        object.__setattr__(self, "synthesis", synthesis.astype(np.float32))

    @property
    def bins(self) -> int:
        """Frequencies of a spectrum, 0 and half the sample rate among them."""
        return self.analysis_frames // 2 + 1

    @property
    def latency_frames(self) -> int:
        """The delay, for any block size.

        A hop that ends at frame e completes all frames before e − M + R, and up to R − 1 frames more have come before
        the next hop is full: M − 1 frames, and one to make it a round number.
        """
        return self.synthesis_frames


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
