"""Spectrograms of target, estimate and error, kept small while an evaluation goes by."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from revithion_stems.audio import Float32
from revithion_stems.evaluation.plots import SPECTROGRAM_S, spectrogram_levels, spectrogram_png


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrograms:
    """Three pictures of one stem, as ``data:`` URLs, in the same colours.

    Attributes:
        model, song, stem: Of what.
        start_s, stop_s: Which part of the song, in seconds.
        target, estimate, error: The pictures; time to the right, mel bands upwards.
    """

    model: str
    song: str
    stem: str
    start_s: float
    stop_s: float
    target: str
    estimate: str
    error: str


class SpectrogramAlbum:
    """A :class:`~revithion_stems.evaluation.evaluator.Listener` that makes pictures of chosen songs.

    Args:
        songs: Patterns of names (``*`` and ``?``).
        models: Names of the models to show.

    Attributes:
        pages: What was made so far.
    """

    def __init__(self, *, songs: Sequence[str], models: Sequence[str]) -> None:
        self.pages: list[Spectrograms] = []
        self._songs = tuple(songs)
        self._models = frozenset(models)

    def wants(self, *, model: str, song: str) -> bool:
        """See :meth:`~revithion_stems.evaluation.evaluator.Listener.wants`."""
        return model in self._models and any(fnmatch.fnmatchcase(song, pattern) for pattern in self._songs)

    def heard(
        self, *, model: str, song: str, stem: str, reference: Float32, estimate: Float32, sample_rate: int
    ) -> None:
        """See :meth:`~revithion_stems.evaluation.evaluator.Listener.heard`."""
        start, stop = excerpt(reference, round(SPECTROGRAM_S * sample_rate))
        truth, guess = reference[:, start:stop], estimate[:, start:stop]
        levels = [spectrogram_levels(samples, sample_rate) for samples in (truth, guess, guess - truth)]
        top_db = max(float(levels[0].max()), float(levels[1].max()))
        target, made, error = (spectrogram_png(level, top_db) for level in levels)
        self.pages.append(
            Spectrograms(
                model=model,
                song=song,
                stem=stem,
                start_s=start / sample_rate,
                stop_s=stop / sample_rate,
                target=target,
                estimate=made,
                error=error,
            )
        )


def excerpt(samples: Float32, frames: int) -> tuple[int, int]:
    """First frame and end of the loudest part of that length; all of what is shorter."""
    if samples.shape[1] <= frames:
        return 0, samples.shape[1]
    hop = max(1, frames // 20)
    count = samples.shape[1] // hop
    energies = np.square(samples[:, : count * hop]).sum(axis=0).reshape(count, hop).sum(axis=1, dtype=np.float64)
    span = frames // hop
    sums = np.convolve(energies, np.ones(min(span, count)), mode="valid")
    start = min(int(np.argmax(sums)) * hop, samples.shape[1] - frames)
    return start, start + frames
