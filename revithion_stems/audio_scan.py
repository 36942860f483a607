"""One pass over a source before it is separated: its real length, peak, digest, and the level of its mono mix."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from revithion_stems.audio import Float32, channel_pairs
from revithion_stems.events import CancelToken


class AudioDigest:
    """SHA-256 of decoded audio: of its rate, its channel count and its float32 samples, interleaved little-endian."""

    def __init__(self, *, channels: int, sample_rate: int) -> None:
        self._hash = hashlib.sha256(f"{sample_rate} {channels}\n".encode())

    def follow(self, blocks: Iterable[Float32]) -> Iterator[Float32]:
        """The same blocks ``[channels, frames]``, each taken into the digest on its way."""
        for block in blocks:
            self._hash.update(np.ascontiguousarray(block.T).astype("<f4", copy=False).data.cast("B"))
            yield block

    def hexdigest(self) -> str:
        """64 hex digits."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What one pass over a source finds; everything about the source that a separation must know before it starts.

    Attributes:
        channels: Number of channels.
        frames: Real length.
        peak: Largest magnitude.
        mean: Per channel group, the mean of its mono mix.
        std: Per channel group, the standard deviation (n − 1) of its mono mix.
        sha256: See :class:`AudioDigest`.
    """

    channels: int
    frames: int
    peak: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str


def scan(blocks: Iterable[Float32], *, channels: int, sample_rate: int, cancel: CancelToken) -> ScanResult:
    """Runs once over a source and gathers length, peak, digest and the statistics that normalise the model's input.

    Demucs normalises by the mean and the standard deviation of the mono mix; here that is done for each group of
    channels that goes through the model together. Sums are taken in float64 by Chan's pairwise update, so that a long
    song loses nothing.
    """
    groups = channel_pairs(channels)
    digest = AudioDigest(channels=channels, sample_rate=sample_rate)
    count = 0
    peak = 0.0
    means = [0.0] * len(groups)
    squares = [0.0] * len(groups)
    for block in digest.follow(blocks):
        cancel.raise_if_cancelled()
        peak = max(peak, float(np.abs(block).max()))
        frames = block.shape[1]
        for index, group in enumerate(groups):
            mono = block[list(group)].mean(axis=0, dtype=np.float64)
            mean = float(mono.mean())
            delta = mean - means[index]
            total = count + frames
            squares[index] += float(np.square(mono - mean).sum()) + delta * delta * count * frames / total
            means[index] += delta * frames / total
        count += frames
    std = tuple(math.sqrt(s / (count - 1)) if count > 1 else 0.0 for s in squares)
    return ScanResult(channels=channels, frames=count, peak=peak, mean=tuple(means), std=std, sha256=digest.hexdigest())
