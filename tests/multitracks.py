"""Synthetic songs in stems, the same on every machine: for tests of training and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100
STEMS = ("drums", "bass", "other", "vocals")


def synthetic_stem(stem: str, seed: int, frames: int, rate: int = RATE) -> np.ndarray:
    """A stem ``[2, frames]`` of float32 that sounds a little like its name."""
    rng = np.random.default_rng([seed, STEMS.index(stem)])
    time = np.arange(frames) / rate
    if stem == "drums":  # a burst of noise every half second
        left, right = rng.standard_normal((2, frames)) * np.exp(-25 * (time % 0.5))
        return (0.2 * np.stack([left, 0.7 * left + 0.3 * right])).astype(np.float32)
    if stem == "bass":
        note = rng.choice([41.2, 55.0, 61.7])
        return (0.25 * np.sin(2 * np.pi * note * time) * np.ones((2, 1))).astype(np.float32)
    if stem == "vocals":  # in the middle, with vibrato and pauses
        phase = 2 * np.pi * 330 * time + 3 * np.sin(2 * np.pi * 5 * time)
        voice = sum(np.sin(k * phase) / k for k in range(1, 7)) * (np.sin(2 * np.pi * 0.4 * time + seed) > -0.3)
        return (0.1 * voice * np.ones((2, 1))).astype(np.float32)
    chord = [np.sin(2 * np.pi * f * time + p) for f, p in zip((262, 330, 392), rng.uniform(0, 6, 3), strict=True)]
    return (0.06 * np.stack([chord[0] + chord[1], chord[1] + chord[2]])).astype(np.float32)


def write_song(folder: Path, seed: int, seconds: float, stems: tuple[str, ...] = STEMS) -> Path:
    """A folder with a file per stem, 16 bits."""
    folder.mkdir(parents=True)
    for stem in stems:
        samples = synthetic_stem(stem, seed, round(seconds * RATE))
        soundfile.write(folder / f"{stem}.wav", samples.T, RATE, subtype="PCM_16")
    return folder
