"""Any model at any device rate: a polyphase windowed-sinc resampler for streams, and a processor between two of them.

With the rates in lowest terms, output j of a conversion by L/M stands at the position j·M/L of the input, less a delay:

    y(j) = Σ_i x(i) · h(j·M/L − delay − i)

where h is a sinc that cuts at half the lower rate, under a Kaiser window of half-width W. Only L different sets of
weights occur, one for each remainder of j·M by L; they are tabulated. With delay ≥ W no input later than j·M/L is
needed, so n inputs give ⌈n·L/M⌉ outputs: the conversion back of them gives at least n, and never has to wait.

The pass band is flat to 20 kHz, and what comes from beyond (lower rate − 20 kHz) is suppressed. What lies between is
mirrored at half the lower rate, hence stays above 20 kHz, where no-one hears it; that halves the delay.

Source: Crochiere, Rabiner: Multirate Digital Signal Processing (1983), chapter 3; Kaiser's formulas for the length and
shape of his window (1974).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from revithion_realtime.block_processor import BlockProcessor
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError
from revithion_stems.live import check_live_rate

PASS_HZ = 20_000.0
"""Flat up to here."""

LOWEST_RATE = 44_100
"""Hz, of either side: below, little or nothing is left between what is heard and what is mirrored."""

STOP_DB = 90.0
"""Suppression that the window is designed for."""

_CHUNK = 512  # outputs computed at once: bounds the memory for the weights and inputs of each


class Resampler:
    """Converts a stream of some channels from one rate to another. One thread at a time.

    Args:
        from_rate: Hz, of the input.
        to_rate: Hz, of the output.
        channels: Of both.
        delay: In input frames; at least :func:`shortest_delay`, which is the default. It need not be whole.

    Raises:
        LiveError: As :func:`shortest_delay`.
    """

    def __init__(self, from_rate: int, to_rate: int, *, channels: int, delay: float | None = None) -> None:
        common = math.gcd(from_rate, to_rate)
        self._up, self._down = to_rate // common, from_rate // common  # L and M
        self.delay = shortest_delay(from_rate, to_rate) if delay is None else delay
        self._table = phase_table(from_rate, to_rate, self.delay)  # [L, taps], the oldest input first
        self._history = np.zeros((channels, self._table.shape[1] - 1), np.float32)
        self._position = 0  # of the next output, from the next input on, in steps of 1/L of an input frame

    def process(self, block: Float32) -> Float32:
        """Takes ``[channels, n]``; returns what of the output it completes, ⌈n·L/M⌉ frames for the whole stream."""
        frames, taps = block.shape[1], self._table.shape[1]
        if not frames:
            return np.empty((block.shape[0], 0), np.float32)
        count = max(0, -(-(frames * self._up - self._position) // self._down))
        joined = np.concatenate([self._history, block], axis=1)
        positions = self._position + self._down * np.arange(count)
        newest, phases = np.divmod(positions, self._up)
        # Row f of the windows are the inputs that end with frame f of the block.
        windows = np.lib.stride_tricks.sliding_window_view(joined, taps, axis=1)
        out = np.empty((block.shape[0], count), np.float32)
        for at in range(0, count, _CHUNK):
            part = slice(at, at + _CHUNK)
            np.einsum("cft,ft->cf", windows[:, newest[part]], self._table[phases[part]], out=out[:, part])
        self._history = joined[:, frames:]
        self._position += count * self._down - frames * self._up
        return out

    def reset(self) -> None:
        """Forgets all input."""
        self._history = np.zeros_like(self._history)
        self._position = 0


def shortest_delay(from_rate: int, to_rate: int) -> float:
    """The half-width of the kernel between two rates, in input frames; that much later each output must be.

    Raises:
        LiveError: ``live.rate``: one of them is below :data:`LOWEST_RATE`.
    """
    if min(from_rate, to_rate) < LOWEST_RATE:
        raise LiveError(
            f"a conversion from {from_rate} to {to_rate} Hz for live use; both must be {LOWEST_RATE} Hz or more",
            hint="Choose a model that was trained at 44.1 kHz or more, or the preview without weights (dsp).",
            code="live.rate",
        )
    transition_hz = min(from_rate, to_rate) - 2 * PASS_HZ
    return (STOP_DB - 8) / (2.285 * 2 * math.pi * transition_hz) / 2 * from_rate


def phase_table(from_rate: int, to_rate: int, delay: float) -> Float32:
    """Weights of the inputs for each position between two of them: float32 ``[L, taps]``, the newest input last.

    Each row sums to 1, so that a constant stays one.
    """
    width = shortest_delay(from_rate, to_rate)
    up = to_rate // math.gcd(from_rate, to_rate)
    taps = math.ceil(delay + width) + 1
    age = np.arange(taps)[::-1]
    distance = np.arange(up)[:, None] / up - delay + age[None, :]
    sinc = np.sinc(distance * min(1.0, to_rate / from_rate))
    inside = np.sqrt(np.maximum(0.0, 1 - (distance / width) ** 2))
    table = sinc * np.where(np.abs(distance) < width, np.i0(0.1102 * (STOP_DB - 8.7) * inside), 0.0)
    return (table / table.sum(axis=1, keepdims=True)).astype(np.float32)


def reference_resample(samples: Float32, from_rate: int, to_rate: int, delay: float) -> Float32:
    """What :class:`Resampler` computes, output by output in float64; for tests."""
    common = math.gcd(from_rate, to_rate)
    up, down = to_rate // common, from_rate // common
    table = phase_table(from_rate, to_rate, delay).astype(np.float64)
    taps = table.shape[1]
    padded: npt.NDArray[np.float64] = np.pad(samples.astype(np.float64), ((0, 0), (taps - 1, 0)))
    count = -(-samples.shape[1] * up // down)
    out = np.zeros((samples.shape[0], count))
    for j in range(count):
        newest, phase = divmod(j * down, up)
        out[:, j] = padded[:, newest : newest + taps] @ table[phase]
    return out.astype(np.float32)


class Resampled:
    """A processor that runs at its own rate, seen from the device's: a :class:`BlockProcessor` around another.

    The delay is a whole number of device frames: the way back is made later by the fraction that is missing. Its stems
    do not sum to the delayed input, which has passed two filters less: put
    :class:`~revithion_realtime.models.mixture_consistent.MixtureConsistent` around it.

    Args:
        inner: The processor.
        model_rate: Hz that ``inner`` is prepared for.
    """

    def __init__(self, inner: BlockProcessor, model_rate: int) -> None:
        self.name, self.stems = inner.name, inner.stems
        self._inner = inner
        self._model_rate = model_rate

    @property
    def latency_frames(self) -> int:
        """The inner processor's delay and that of both conversions, in device frames."""
        return self._latency

    @property
    def hop_frames(self) -> int:
        """The inner processor's hop in device frames, rounded up."""
        return self._hop

    def prepare(self, sample_rate: int) -> None:
        """As :meth:`BlockProcessor.prepare`.

        Raises:
            LiveError: ``live.rate``: not a rate of :data:`~revithion_stems.live.LIVE_RATES`, or the model's is below
                :data:`LOWEST_RATE`.
            RevithionError: As the inner processor's.
        """
        check_live_rate(sample_rate)
        there = shortest_delay(sample_rate, self._model_rate)
        back = shortest_delay(self._model_rate, sample_rate)
        self._inner.prepare(self._model_rate)
        ratio = sample_rate / self._model_rate
        self._latency = math.ceil(there + (self._inner.latency_frames + back) * ratio)
        self._hop = math.ceil(self._inner.hop_frames * ratio)
        stems = len(self._inner.stems)
        self._to_model = Resampler(sample_rate, self._model_rate, channels=2, delay=there)
        self._from_model = Resampler(
            self._model_rate,
            sample_rate,
            channels=2 * stems,
            delay=(self._latency - there) / ratio - self._inner.latency_frames,
        )
        self._early = np.zeros((2 * stems, 0), np.float32)

    def process(self, block: Float32, out: Float32) -> None:
        """As :meth:`BlockProcessor.process`."""
        frames, stems = block.shape[1], len(self._inner.stems)
        given = self._to_model.process(block)
        made = np.empty((stems, 2, given.shape[1]), np.float32)
        ready = self._early
        if given.shape[1]:
            self._inner.process(given, made)
            # ⌈⌈n/r⌉·r⌉ frames are at least n, and less than n + r + 1: some come early.
            ready = np.concatenate([ready, self._from_model.process(made.reshape(2 * stems, -1))], axis=1)
        out[...] = ready[:, :frames].reshape(stems, 2, frames)
        self._early = ready[:, frames:]

    def reset(self) -> None:
        """Forgets all input."""
        self._inner.reset()
        self._to_model.reset()
        self._from_model.reset()
        self._early = self._early[:, :0]
