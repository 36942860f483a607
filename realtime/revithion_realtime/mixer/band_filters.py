"""The equaliser that kills bands, and the DJ filter: bit for bit not there when they stand in the middle."""

from __future__ import annotations

import functools

import numpy as np

from revithion_realtime.mixer.chunk_filter import CHUNK, ChunkFilter, ChunkMatrices, Circuit, Float64, chunk_matrices
from revithion_realtime.mixer.ramps import Ramps
from revithion_stems.live import RAMP_S

LOW_CROSSOVER_HZ = 250.0
HIGH_CROSSOVER_HZ = 2_500.0
"""Where the bands of the equaliser meet."""

LOW_PASS_HZ = (20_000.0, 80.0)
HIGH_PASS_HZ = (20.0, 8_000.0)
"""Cut-off of the DJ filter next to its middle, and closed."""

FILTER_STEPS = 256
"""Positions on each side of the DJ filter: a thirtieth of an octave apart."""

TRAVEL_S = 0.02
"""Shortest time of the DJ filter from the middle to an end: eight octaves in less are a tick by themselves."""

_MIX = 3  # the ramp that fades the equaliser in and out, after those of its bands
_POSITION, _LOW_PASS, _HIGH_PASS = range(3)  # ramps of the DJ filter: where it stands; its two halves in and out


class KillEqualiser:
    """Three bands, each with its own gain down to nothing; two channels. For the audio callback, like its parts.

    With all gains at 1 it is idle and does nothing. It fades in when a gain is moved, and out when all are sent back
    to 1 (:data:`~revithion_stems.live.RAMP_S`), because its bands together are an all-pass and not the input itself.

    Args:
        sample_rate: Hz.
        most_frames: No call has more.
    """

    def __init__(self, sample_rate: int, most_frames: int) -> None:
        self._matrices = _crossover(sample_rate)
        self._filter = ChunkFilter(_CROSSOVER_STATES, most_frames)
        self._ramps = Ramps((1.0, 1.0, 1.0, 0.0), most_frames, np.float64)
        self._fade = round(RAMP_S * sample_rate)
        self._bands = np.empty((3, 2, most_frames))

    @property
    def idle(self) -> bool:
        """Whether it would leave samples as they are."""
        return self._ramps.target(_MIX) == 0.0 and self._ramps.rests(_MIX)

    def move(self, band: int, gain: float, frames: int) -> None:
        """Sends the linear gain of a band (0 low, 1 middle, 2 high) to ``gain`` in ``frames`` frames."""
        idle = self.idle
        self._ramps.move(band, gain, frames)
        neutral = all(self._ramps.target(each) == 1.0 for each in range(3))
        if idle and not neutral:
            self._filter.reset()
        _fade(self._ramps, _MIX, not neutral, self._fade, frames)

    def render(self, samples: Float64) -> None:
        """Puts the next frames, float64 ``[2, n]``, through it in place."""
        bands = self._bands[:, :, : samples.shape[1]]
        self._filter.run(self._matrices, samples, bands)
        for band in range(3):
            self._ramps.scale(band, bands[band])
        wet = bands[0]
        np.add(wet, bands[1], out=wet)
        np.add(wet, bands[2], out=wet)
        _blend(self._ramps, _MIX, samples, wet)
        self._ramps.advance(samples.shape[1])

    def reset(self) -> None:
        """Forgets all input; gains stay."""
        self._filter.reset()


class SweepFilter:
    """The DJ filter, 24 dB/octave: a low-pass to the left of its middle, a high-pass to the right. Two channels.

    In the middle it is idle and does nothing. Each half fades in when the position is sent to its side, and out when it
    is sent off it. Sweeps go through a bank of filters; its states mean the same for all of them.

    Args:
        sample_rate: Hz.
        most_frames: No call has more.
    """

    def __init__(self, sample_rate: int, most_frames: int) -> None:
        self._banks = _sweep_banks(sample_rate)
        self._filters = (ChunkFilter(_SWEEP_STATES, most_frames), ChunkFilter(_SWEEP_STATES, most_frames))
        self._ramps = Ramps((0.0, 0.0, 0.0), most_frames, np.float64)
        self._fade = round(RAMP_S * sample_rate)
        self._travel = TRAVEL_S * sample_rate
        self._wet = np.empty((1, 2, most_frames))
        self._step = 0  # which filter of the bank, negative to the left
        self._phase = 0  # frames since it was looked up

    @property
    def idle(self) -> bool:
        """Whether it would leave samples as they are."""
        return not (self._audible(_LOW_PASS) or self._audible(_HIGH_PASS))

    def move(self, position: float, frames: int) -> None:
        """Sends it to a position, −1 to 1, in ``frames`` frames, but no faster than :data:`TRAVEL_S` says."""
        if self.idle:
            self._phase = 0
        position = min(1.0, max(-1.0, position))
        way = abs(position - self._ramps.at(_POSITION, -1))
        frames = max(frames, round(way * self._travel))
        self._ramps.move(_POSITION, position, frames)
        for half, wanted in ((_LOW_PASS, position < 0.0), (_HIGH_PASS, position > 0.0)):
            if wanted and not self._audible(half):
                self._filters[half - 1].reset()
            _fade(self._ramps, half, wanted, self._fade, frames)

    def render(self, samples: Float64) -> None:
        """Puts the next frames, float64 ``[2, n]``, through it in place."""
        step, phase = self._step, self._phase
        for half in (_LOW_PASS, _HIGH_PASS):
            if self._audible(half):
                step, phase = self._sweep(half, samples)
        self._step, self._phase = step, phase
        self._ramps.advance(samples.shape[1])

    def reset(self) -> None:
        """Forgets all input; its position stays."""
        for each in self._filters:
            each.reset()

    def _audible(self, half: int) -> bool:
        return self._ramps.target(half) != 0.0 or not self._ramps.rests(half)

    def _sweep(self, half: int, samples: Float64) -> tuple[int, int]:
        # The position is looked up every CHUNK frames, counted from when the filter was moved off the middle: that is
        # the same in whatever pieces time is taken. Where it rests, all that is left can go at once.
        frames, step, phase, at = samples.shape[1], self._step, self._phase, 0
        bank, side = self._banks[half - 1], -1 if half == _LOW_PASS else 1
        wet = self._wet[:, :, :frames]
        while at < frames:
            if phase == 0:
                step = round(FILTER_STEPS * self._ramps.at(_POSITION, at))
            steady = self._ramps.rests(_POSITION) and step == round(FILTER_STEPS * self._ramps.target(_POSITION))
            end = frames if steady else min(frames, at + CHUNK - phase)
            matrices = bank[max(0, side * step)]
            self._filters[half - 1].run(matrices, samples[:, at:end], wet[:, :, at:end])
            phase = (phase + end - at) % CHUNK
            at = end
        _blend(self._ramps, half, samples, wet[0])
        return step, phase


def _fade(ramps: Ramps, index: int, wanted: bool, fade_frames: int, move_frames: int) -> None:
    # In quickly, so that the move is heard from its beginning; out no sooner than the move is over.
    ramps.move(index, 1.0 if wanted else 0.0, fade_frames if wanted else max(fade_frames, move_frames))


def _blend(ramps: Ramps, index: int, dry: Float64, wet: Float64) -> None:
    if ramps.rests(index) and ramps.target(index) == 1.0:
        np.copyto(dry, wet)
        return
    np.subtract(wet, dry, out=wet)
    ramps.scale(index, wet)
    np.add(dry, wet, out=dry)


_CROSSOVER_STATES = 17
_SWEEP_STATES = 4


@functools.cache
def _crossover(sample_rate: int) -> ChunkMatrices:
    # Linkwitz and Riley: the square of a Butterworth low-pass 1/B(s) and that of its high-pass add up to an all-pass:
    # for order 3 B(s)·B(−s) = 1 − s⁶, so 1/B² − s⁶/B² = B(−s)/B(s). Hence the high band is the all-pass less the low
    # band, exactly, and needs no filter of its own; and the low band goes through the upper crossover's all-pass to
    # keep step with the other two. Order 3, squared: 36 dB an octave from the crossover; order 2 would make 24.6 dB.
    circuit = Circuit(_CROSSOVER_STATES, sample_rate)
    low, rest = _split(circuit, circuit.source, LOW_CROSSOVER_HZ)
    mid, high = _split(circuit, rest, HIGH_CROSSOVER_HZ)
    _, band = circuit.two_pole(low, HIGH_CROSSOVER_HZ, 1.0)
    low = _all_pass(circuit, low - 2 * band, HIGH_CROSSOVER_HZ)
    return chunk_matrices(circuit, low, mid, high)[0]


def _split(circuit: Circuit, signal: Float64, frequency: float) -> tuple[Float64, Float64]:
    # B(s) = (1 + s)(1 + s + s²): one pole, and two with Q 1, which serve the low-pass and the all-pass.
    low, band = circuit.two_pole(signal, frequency, 1.0)
    low, _ = circuit.two_pole(circuit.one_pole(low, frequency), frequency, 1.0)
    low = circuit.one_pole(low, frequency)
    return low, _all_pass(circuit, signal - 2 * band, frequency) - low


def _all_pass(circuit: Circuit, signal: Float64, frequency: float) -> Float64:
    return 2 * circuit.one_pole(signal, frequency) - signal


@functools.cache
def _sweep_banks(sample_rate: int) -> tuple[list[ChunkMatrices], list[ChunkMatrices]]:
    closed = np.linspace(0.0, 1.0, FILTER_STEPS + 1)
    # Butterworth's pair of sections where it is open; closed, the second one resonates.
    q = (0.541, 1.307 + closed * 0.9)
    banks: list[list[ChunkMatrices]] = []
    for side, (opened_hz, closed_hz) in enumerate((LOW_PASS_HZ, HIGH_PASS_HZ)):
        frequency = np.minimum(opened_hz * (closed_hz / opened_hz) ** closed, 0.45 * sample_rate)
        circuit = Circuit(_SWEEP_STATES, sample_rate, closed.size)
        signal = circuit.source
        for each in q:
            low, band = circuit.two_pole(signal, frequency, each)
            signal = low if side == 0 else signal - band / np.reshape(each, (-1, 1)) - low
        banks.append(chunk_matrices(circuit, signal))
    return banks[0], banks[1]
