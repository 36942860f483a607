"""Strips and monitor mix, inside the audio callback."""

from __future__ import annotations

import math

import numpy as np

from revithion_realtime.mixer.band_filters import KillEqualiser, SweepFilter
from revithion_realtime.mixer.ramps import Ramps
from revithion_realtime.mixer.strip_slots import SLOTS_PER_STRIP, Slot, monitor_slot
from revithion_stems.audio import Float32

PEAK_FALL_DB_PER_S = 20.0
"""How fast peaks fall back."""


class StripMixer:
    """Equaliser, filter and gains of each strip, in this order, and their sum.

    In neutral settings stems pass bit for bit, and the mix is their float32 sum in order. After construction nothing
    allocates memory for samples, locks, does I/O, or raises. One thread.

    Args:
        strips: How many.
        sample_rate: Hz.
        most_frames: Length of the arrays that :meth:`render` gets.

    Attributes:
        peaks: float32 ``[strips + 1, 2]``: linear peaks of left and right after the strips, the mix last. They rise at
            once and fall by :data:`PEAK_FALL_DB_PER_S`, in steps of what is rendered at a time.
    """

    def __init__(self, strips: int, sample_rate: int, most_frames: int) -> None:
        self.peaks: Float32 = np.zeros((strips + 1, 2), np.float32)
        # A chain of plug-ins will stand between the filter and the gains of a strip; all strips will then be delayed to
        # the longest chain, so that the mix stays a sum of the same frames.
        self._equalisers = [KillEqualiser(sample_rate, most_frames) for _ in range(strips)]
        self._filters = [SweepFilter(sample_rate, most_frames) for _ in range(strips)]
        self._gains = Ramps([1.0] * (2 * strips + 1), most_frames, np.float32)
        self._monitor = 2 * strips
        self._slots = monitor_slot(strips)
        self._fall_per_frame = 10.0 ** (-PEAK_FALL_DB_PER_S / 20.0 / sample_rate)
        self._highest, self._lowest = np.zeros_like(self.peaks), np.zeros_like(self.peaks)
        self._work = np.empty((2, most_frames))

    def move(self, slot: int, value: float, ramp_frames: int) -> None:
        """Sends a target to a value, from the next frame that is rendered.

        Args:
            slot: As :mod:`~revithion_realtime.mixer.strip_slots` numbers them.
            value: Linear gain, or position of the filter. What is not a number is ignored, as is an unknown slot:
                nobody could be told here.
            ramp_frames: How many frames it takes to get there.
        """
        if not 0 <= slot <= self._slots or not math.isfinite(value):
            return
        strip, kind = divmod(slot, SLOTS_PER_STRIP)
        if slot == self._slots:
            self._gains.move(self._monitor, value, ramp_frames)
        elif kind <= Slot.GAIN_RIGHT:
            self._gains.move(2 * strip + kind, value, ramp_frames)
        elif kind <= Slot.HIGH:
            self._equalisers[strip].move(kind - Slot.LOW, value, ramp_frames)
        else:
            self._filters[strip].move(value, ramp_frames)

    def render(self, stems: Float32, start: int, frames: int, mix: Float32) -> None:
        """Puts frames of the stems through their strips, and sums them up.

        A block is rendered in one piece, or in several if controls move in the middle of it: what comes out does not
        depend on the pieces.

        Args:
            stems: float32 ``[strips, 2, most_frames]``, finite; ``[start, start + frames)`` is changed in place.
            start: First frame.
            frames: At least 1.
            mix: float32 ``[2, most_frames]``; the same frames of it are written.
        """
        with np.errstate(all="ignore"):  # a warning would be I/O
            part, out = stems[:, :, start : start + frames], mix[:, start : start + frames]
            for strip in range(part.shape[0]):
                self._shape(strip, part[strip])
            np.copyto(out, part[0])
            for strip in range(1, part.shape[0]):
                np.add(out, part[strip], out=out)
            self._gains.scale(self._monitor, out)
            self._gains.advance(frames)
            self._measure(part, out)

    def _shape(self, strip: int, samples: Float32) -> None:
        equaliser, sweep = self._equalisers[strip], self._filters[strip]
        if not (equaliser.idle and sweep.idle):
            work = self._work[:, : samples.shape[1]]
            np.copyto(work, samples)
            if not equaliser.idle:
                equaliser.render(work)
            if not sweep.idle:
                sweep.render(work)
            np.copyto(samples, work, casting="same_kind")
        self._gains.scale(2 * strip, samples[0])
        self._gains.scale(2 * strip + 1, samples[1])

    def _measure(self, stems: Float32, mix: Float32) -> None:
        highest, lowest = self._highest, self._lowest
        np.maximum.reduce(stems, axis=2, out=highest[:-1])
        np.maximum.reduce(mix, axis=1, out=highest[-1])
        np.minimum.reduce(stems, axis=2, out=lowest[:-1])
        np.minimum.reduce(mix, axis=1, out=lowest[-1])
        np.negative(lowest, out=lowest)
        np.maximum(highest, lowest, out=highest)
        if not (math.isfinite(highest[-1, 0]) and math.isfinite(highest[-1, 1])):
            self._recover(stems, mix)
            return
        np.multiply(self.peaks, self._fall_per_frame ** mix.shape[1], out=self.peaks)
        np.maximum(self.peaks, highest, out=self.peaks)

    def _recover(self, stems: Float32, mix: Float32) -> None:
        # Somebody broke the promise of finite stems. Better a gap than a filter that never stops.
        stems.fill(0.0)
        mix.fill(0.0)
        for equaliser, sweep in zip(self._equalisers, self._filters, strict=True):
            equaliser.reset()
            sweep.reset()
