"""The causal network over whole signals: what training validates with and the offline engine runs."""

from __future__ import annotations

import torch
from torch import Tensor

from revithion_stems.models.causal_preview import CausalPreview
from revithion_stems.models.spectrogram import columns_of, overlapped


def separate_causally(network: CausalPreview, mix: Tensor, *, chunk_frames: int | None = None) -> Tensor:
    """The stems of mixes, without delay. The network begins with no memory and goes on from chunk to chunk.

    Args:
        network: In evaluation mode.
        mix: float32 ``[B, 2, n]``.
        chunk_frames: Taken at once, rounded up to whole hops: the memory for spectra is bounded by it. None: all.

    Returns:
        float32 ``[B, S, 2, n]``.
    """
    design = network.config.design
    hop = design.hop_frames
    lead = design.synthesis_frames - hop  # the last frames are complete only when as many have followed
    frames = mix.shape[-1]
    chunk = -(-(chunk_frames or frames + lead) // hop) * hop
    chunks = -(-(frames + lead) // chunk)
    before = design.analysis_frames - hop
    padded = torch.nn.functional.pad(mix, (before, chunks * chunk - frames))
    out = mix.new_zeros(len(mix), len(network.config.stems), 2, lead + chunks * chunk)
    state: Tensor | None = None
    for start in range(0, chunks * chunk, chunk):
        columns = columns_of(design, padded[..., start : start + before + chunk]).transpose(1, 2)  # [B, T, 2, F]
        masks, state = network(columns, state)  # [B, T, S, 2, F]
        stems = (masks * columns.unsqueeze(2)).movedim(1, -2)  # [B, S, 2, T, F]
        out[..., start : start + lead + chunk] += overlapped(design, stems)
    return out[..., lead : lead + frames]
