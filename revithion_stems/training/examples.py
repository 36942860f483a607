"""Examples to learn from: stems drawn from songs, remixed, augmented. Seed and number of an example decide it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.utils.data import Dataset

from revithion_stems.audio import Float32
from revithion_stems.errors import ConfigError
from revithion_stems.training.augmentation import Augmentation
from revithion_stems.training.datasets.multitrack import Multitrack

if TYPE_CHECKING:
    from revithion_stems.training.train_config import TrainConfig

_TRIES: Final = 4
"""Places that are looked at for one where the stem is heard."""

_HEARD: Final = 1e-3
"""Root mean square above which a stem is heard: −60 dBFS."""


class Examples(Dataset[torch.Tensor]):
    """Example number i is the same in every process and on every run: nothing is remembered from one to the next.

    Args:
        config: Of the run.
        tracks: With the weight of the dataset that each comes from; a song is drawn by weight times length.
        stems: In the order of the output.
    """

    def __init__(self, config: TrainConfig, tracks: list[tuple[Multitrack, float]], stems: tuple[str, ...]) -> None:
        self._config = config
        self._stems = stems
        self._frames = round(config.examples.seconds * tracks[0][0].sample_rate)
        self._tracks = [track for track, _ in tracks]
        self._augmentation = Augmentation(config.augment, tracks[0][0].sample_rate)
        weights = np.array([weight * track.frames for track, weight in tracks])
        self._cumulative = {stem: np.cumsum(weights * [stem in t.stems for t in self._tracks]) for stem in stems}
        if missing := [stem for stem, sums in self._cumulative.items() if sums[-1] == 0]:
            raise ConfigError(
                f"no song of the training data has {missing[0]}",
                hint="Add a dataset that has it, or train without this stem.",
                code="config.train",
            )

    def __getitem__(self, index: int) -> torch.Tensor:
        """Example ``index``: stems float32 ``[S, 2, frames]``; their sum is the mix."""
        rng = np.random.default_rng((self._config.seed, index))
        song, speed, place = None, None, float(rng.random())
        if rng.random() >= self._config.examples.remix:
            song, speed = self._draw(rng, self._stems[index % len(self._stems)]), self._augmentation.draw_speed(rng)
        stems = np.stack([self._stem(rng, stem, song, place, speed) for stem in self._stems])
        return torch.from_numpy(self._augmentation.mix(rng, stems))

    def _stem(
        self, rng: np.random.Generator, stem: str, song: Multitrack | None, place: float, speed: float | None
    ) -> Float32:
        plan = self._augmentation.draw(rng, stem, speed=speed)
        wanted = plan.frames_needed(self._frames)
        if rng.random() < self._config.examples.absent:
            return np.zeros((2, self._frames), np.float32)
        if song is not None:
            return plan.apply(_read(song, stem, place, wanted), self._frames)
        samples = np.zeros((2, wanted), np.float32)
        for _ in range(_TRIES):
            samples = _read(self._draw(rng, stem), stem, float(rng.random()), wanted)
            if float(np.sqrt(np.mean(samples * samples))) > _HEARD:
                break
        return plan.apply(samples, self._frames)

    def _draw(self, rng: np.random.Generator, stem: str) -> Multitrack:
        cumulative = self._cumulative[stem]
        return self._tracks[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]


def _read(track: Multitrack, stem: str, place: float, frames: int) -> Float32:
    """Frames from a place, 0…1 along the song; a song that is too short is followed by silence."""
    if stem not in track.stems:
        return np.zeros((2, frames), np.float32)
    start = int(place * max(0, track.frames - frames))
    samples = track.read(stem, start, min(frames, track.frames - start))
    return np.pad(samples, ((0, 0), (0, frames - samples.shape[1])))
