"""Stems that sum to what went in, whatever the model says: the last thing around every model of the live preview."""

from __future__ import annotations

import numpy as np

from revithion_realtime.block_processor import BlockProcessor
from revithion_stems.audio import MAX_PEAK, Float32
from revithion_stems.stems import FLOAT_GRID_BITS, close_null

SILENCE_FRAMES = 256
"""After so many frames of zeros in the delayed input its stems are zeros as well."""

ONSET_FRAMES = 64
"""So many frames of sound after silence bring the estimates back: a model's window spreads an onset to before it."""


class MixtureConsistent:
    """A :class:`BlockProcessor` around another, whose stems always sum to the delayed input.

    - Stems are multiples of 2^-24 while their magnitudes add up to less than 1, and a float32 sum of them in any order
      is the delayed input: exactly where that lies on this grid (16 and 24-bit audio does), else within 2^-25.
    - Where the delayed input is silent, the stems are: a model that still rings (its stems then cancel out) is faded
      out over the first :data:`SILENCE_FRAMES` zeros of both channels. To cut at the first zero would click, since
      music crosses zero. When sound comes again the folded stem has it at once, and gives the other stems theirs over
      :data:`ONSET_FRAMES`, since by then a model may be in the middle of what it made of the onset.
    - Only finite samples enter the model and leave: what is NaN or infinite counts as zero, and what is beyond ±1e12
      is limited. A model whose every frame of a hop is spoilt so is reset, since its memory may be; until it has an
      answer again the folded stem has all.

    Args:
        inner: The processor.
        fold: Index of the stem that takes what the model leaves of the input.
    """

    def __init__(self, inner: BlockProcessor, fold: int) -> None:
        self.name, self.stems = inner.name, inner.stems
        self._inner = inner
        self._fold = fold

    @property
    def latency_frames(self) -> int:
        """Of the inner processor; nothing is added."""
        return self._inner.latency_frames

    @property
    def hop_frames(self) -> int:
        """Of the inner processor."""
        return self._inner.hop_frames

    def prepare(self, sample_rate: int) -> None:
        """As :meth:`BlockProcessor.prepare`; raises what the inner processor raises."""
        self._inner.prepare(sample_rate)
        self._late = np.zeros((2, self._inner.latency_frames), np.float32)  # a ring of the last input
        self._at = 0
        self._zeros = SILENCE_FRAMES  # in a row up to now, no more than that are counted
        self._sound = 0  # frames since silence, or since a reset model has heard: not yet while negative
        self._spoilt = 0  # frames in a row that the model spoilt, in whole blocks

    def process(self, block: Float32, out: Float32) -> None:
        """As :meth:`BlockProcessor.process`, but the block need not be finite."""
        mix = _limited(block)
        estimates = np.empty(out.shape, np.float32)
        self._inner.process(mix, estimates)
        delayed = self._delay(mix)
        out[...], _ = close_null(_limited(estimates) * self._gains(delayed), delayed, self._fold, FLOAT_GRID_BITS)
        self._reset_if_spoilt(estimates)

    def reset(self) -> None:
        """Forgets all input."""
        self._inner.reset()
        self._late[...] = 0.0
        self._at, self._zeros, self._sound, self._spoilt = 0, SILENCE_FRAMES, 0, 0

    def _reset_if_spoilt(self, estimates: Float32) -> None:
        some_good = np.isfinite(estimates).all(axis=(0, 1)).any()
        self._spoilt = 0 if some_good else self._spoilt + estimates.shape[2]
        if self._spoilt >= self._inner.hop_frames:
            self._inner.reset()
            self._spoilt, self._sound = 0, -self._inner.latency_frames

    def _delay(self, mix: Float32) -> Float32:
        latency, frames = self._late.shape[1], mix.shape[1]
        if not latency:
            return mix
        delayed = np.empty_like(mix)
        done = 0
        while done < frames:
            take = min(frames - done, latency - self._at)
            ring = self._late[:, self._at : self._at + take]
            delayed[:, done : done + take] = ring
            ring[...] = mix[:, done : done + take]
            self._at = (self._at + take) % latency
            done += take
        return delayed

    def _gains(self, delayed: Float32) -> Float32:
        """Float32 ``[frames]``: 1 while there is sound, falling with zeros of both channels, rising after silence."""
        frame = np.arange(delayed.shape[1])
        last_sound = np.maximum.accumulate(np.where(delayed.any(axis=0), frame, -1 - self._zeros))
        zeros = np.minimum(frame - last_sound, SILENCE_FRAMES)
        last_silence = np.maximum.accumulate(np.where(zeros == SILENCE_FRAMES, frame, -1 - self._sound))
        sound = np.minimum(frame - last_silence, ONSET_FRAMES)
        self._zeros, self._sound = int(zeros[-1]), int(sound[-1])
        return np.clip(np.minimum(1.0 - zeros / SILENCE_FRAMES, sound / ONSET_FRAMES), 0.0, None).astype(np.float32)


def _limited(samples: Float32) -> Float32:
    return np.clip(np.where(np.isfinite(samples), samples, np.float32(0.0)), -MAX_PEAK, MAX_PEAK)
