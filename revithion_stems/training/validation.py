"""How good a network is on whole songs: SDR per stem, as ``evaluate`` computes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from revithion_stems.quality import sdr_db
from revithion_stems.training.datasets.multitrack import Multitrack
from revithion_stems.training.separating import separate_song

_CHUNK_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Figures of one validation; what they are, see :class:`~revithion_stems.training.train_events.ValidationDone`."""

    sdr_db: dict[str, float]
    mean: float
    songs: dict[str, dict[str, float]]


def validate(
    network: nn.Module,
    songs: Sequence[Multitrack],
    stems: tuple[str, ...],
    *,
    max_seconds: float,
    device: torch.device,
    check: Callable[[], None],
) -> Validation:
    """Separates each song's sum, and compares.

    Args:
        network: As it is; put into evaluation mode meanwhile.
        songs: Their stems are the truth; one that a song does not know is left out, and a silent one has no figure.
        stems: In the order of the network's output.
        max_seconds: Of each song.
        device: Where the network is.
        check: Called before each song; may raise.
    """
    was_training = network.training
    network.eval()
    figures: dict[str, dict[str, float]] = {}
    try:
        for song in songs:
            check()
            figures[song.name] = _song(network, song, stems, max_seconds, device)
    finally:
        network.train(was_training)
    heard = {stem: [song[stem] for song in figures.values() if stem in song] for stem in stems}
    means = {stem: float(np.mean(values)) for stem, values in heard.items() if values}
    return Validation(sdr_db=means, mean=float(np.mean(list(means.values()))) if means else math.nan, songs=figures)


def _song(
    network: nn.Module, song: Multitrack, stems: tuple[str, ...], max_seconds: float, device: torch.device
) -> dict[str, float]:
    frames = min(song.frames, round(max_seconds * song.sample_rate))
    truth = {stem: song.read(stem, 0, frames) for stem in song.stems}
    mix = torch.from_numpy(np.sum(list(truth.values()), axis=0)).to(device)
    ours: Any = separate_song(network, mix, chunk_frames=round(_CHUNK_S * song.sample_rate)).cpu().numpy()
    return {
        stem: sdr_db(truth[stem], ours[index])
        for index, stem in enumerate(stems)
        if stem in truth and bool(np.any(truth[stem]))
    }
