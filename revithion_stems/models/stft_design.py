"""The windows of a spectrum with fine frequencies and a short delay: long for analysis, short for synthesis.

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

from dataclasses import dataclass, field

import numpy as np

from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError


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
