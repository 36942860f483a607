"""One way to run every architecture in training: mixes in, estimates with their targets out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from revithion_stems.audio import Float32
from revithion_stems.models.causal_preview import CausalPreview
from revithion_stems.models.causal_song import separate_causally
from revithion_stems.models.spectrogram import columns_first
from revithion_stems.models.stft_design import StftDesign
from revithion_stems.overlap_add import OverlapAdd
from revithion_stems.training.losses import Estimates, Masked

OFFLINE_DESIGN = StftDesign(analysis_frames=2048, synthesis_frames=2048, hop_frames=512)
"""Spectra that losses see of networks that give samples."""


class Separating(nn.Module):
    """A network with what is around it: spectra before and after, where the network has none of its own.

    Args:
        network: Of :mod:`revithion_stems.models.architectures`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, stems: Tensor) -> Estimates:
        """True stems float32 ``[B, S, 2, n]`` → what the network makes of their sum."""
        if not isinstance(self.network, CausalPreview):
            return Estimates(OFFLINE_DESIGN, stems, samples=self.network(stems.sum(1)))
        design = self.network.config.design
        targets = columns_first(design, stems)  # [B, T, S, 2, F]
        mix = targets.sum(2)  # [B, T, 2, F]
        masks, _ = self.network(mix)  # [B, T, S, 2, F]
        return Estimates(design, stems, masked=Masked(masks=masks, mix=mix, targets=targets))


@torch.no_grad()
def separate_song(network: nn.Module, mix: Tensor, *, chunk_frames: int) -> Tensor:
    """The stems of a whole song, in bounded memory for spectra: a causal network goes on from chunk to chunk.

    Args:
        network: In evaluation mode.
        mix: float32 ``[2, n]``.
        chunk_frames: Taken at once; networks that aren't causal get chunks that overlap by half.

    Returns:
        float32 ``[S, 2, n]``, without delay.
    """
    if isinstance(network, CausalPreview):
        return separate_causally(network, mix.unsqueeze(0), chunk_frames=chunk_frames)[0]
    return _offline_song(network, mix, chunk_frames)


def _offline_song(network: nn.Module, mix: Tensor, chunk_frames: int) -> Tensor:
    """As `separate` does it, with half a segment of overlap."""
    config: Any = network.config

    def run(segment: Float32) -> Float32:
        return network(torch.from_numpy(segment).to(mix).unsqueeze(0))[0].cpu().numpy()

    adder = OverlapAdd(run, channels=2, stems=len(config.stems), segment_frames=chunk_frames, overlap=0.5, fixed=True)
    parts = [*adder.feed(mix.cpu().numpy()), *adder.finish()]
    return torch.from_numpy(np.concatenate(parts, axis=-1)).to(mix)
