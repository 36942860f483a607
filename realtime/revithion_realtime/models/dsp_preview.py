"""Live stems without a network: where a sound is in the stereo picture, how suddenly it came, and how high it is.

Middle (L+R)/2 and side (L−R)/2 are separated each for itself, by soft masks that sum to one in every bin. For each stem
the evidence is added up in dB, and a mask is the stem's share of the total: 10^(dB/20) over the sum of the four. (The
arrays are in nepers, 8.7 dB each, whose exponential is the plain one.) What counts as evidence:

- *Pitch.* What is typical of a stem at a frequency: the low band is the bass', and voices have little above 10 kHz.
- *Suddenness.* A drum stroke is a vertical line in a spectrogram, a tone a horizontal one. The median over the
  neighbouring frequencies keeps the former, the median over the past the latter; their ratio tells them apart.
- *Centre.* Voices, bass, kick and snare are mixed to the middle; guitars and keyboards to the sides. The ratio of the
  powers of middle and side, smoothed, is high for what is at the centre.

The figures are rounded from a least-squares fit to a few multitracks, and three of them were moved by up to a tenth
afterwards, for SDR. A mono input has no side: its centre is then no evidence for voices, and the other two decide.

Medians are of nine, by minima and maxima of whole arrays: that is several times faster than to sort each bin's values.
Nine hops of the past that lie apart serve as well as all, since the windows of neighbours are almost the same.

Source: Fitzgerald: Harmonic/percussive separation using median filtering (DAFx 2010), with a median over the past in
place of the one around the frame; Avendano, Jot: A frequency-domain approach to multichannel upmix (2004); Paeth:
Median finding on a 3×3 grid (Graphics Gems, 1990).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from revithion_realtime.models.asymmetric_stft import Complex64, StreamingStft
from revithion_stems.audio import Float32
from revithion_stems.live import check_live_rate
from revithion_stems.models.stft_design import StftDesign

STEMS: Final = ("drums", "bass", "other", "vocals")

_PITCH_HZ: Final = (50.0, 100.0, 200.0, 400.0, 800.0, 1_600.0, 3_200.0, 6_400.0, 12_800.0)
_PITCH_DB: Final = (
    (6, 0, -10, -8, -10, -12, -14, -12, 0),  # drums
    (6, 10, 2, -15, -20, -20, -15, -12, -10),  # bass
    (8, 16, 25, 27, 29, 31, 32, 32, 28),  # other
    (-21, -26, -17, -5, 0, -1, -4, -6, -20),  # vocals
)
"""What is typical of each stem in the middle, at the frequencies above; straight lines over log f between them."""

_SIDE_DB: Final = (-6, -5, 16, -5)
"""The same for the side, added to it."""

_SUDDEN: Final = np.array([(1.3, 0.4), (-0.5, 0.3), (-0.2, -1.0), (-0.1, 0.3)], np.float32)[:, :, None]
"""Evidence for each stem, in the middle and in the side, for each dB of suddenness."""

_CENTRE: Final = np.array([(-0.2, -0.5), (0.1, -0.4), (-1.0, 1.3), (0.95, -0.4)], np.float32)[:, :, None]
"""The same for each dB of centre."""

_NP_PER_DB: Final = math.log(10) / 20
_SUDDEN_RANGE_NP: Final = 24 * _NP_PER_DB
_CENTRE_RANGE_NP: Final = (-6 * _NP_PER_DB, 24 * _NP_PER_DB)
_NO_CENTRE_NP: Final = np.float32(14 * _NP_PER_DB)  # stands for the centre where there is no stereo picture
_PAST_S: Final = 0.2  # that the nine hops of the median over the past are spread over
_SMOOTHING: Final = np.float32(0.6)  # of powers, from hop to hop
_PICTURE_SMOOTHING: Final = 0.99
_TINY: Final = np.float32(1e-18)  # a power that no sound has; also keeps what decays away from denormal numbers


class DspPreview:
    """A :class:`~revithion_realtime.block_processor.BlockProcessor` without weights, for any machine.

    Its windows scale with the rate: 4096 frames of analysis and 512 of delay at 44.1 and 48 kHz, twice as many at the
    double rates. Its stems sum to the delayed input up to rounding.
    """

    name = "dsp"
    stems = STEMS

    @property
    def latency_frames(self) -> int:
        """512 frames, or 1024 from 88.2 kHz on."""
        return self._design.latency_frames

    @property
    def hop_frames(self) -> int:
        """Half the latency."""
        return self._design.hop_frames

    def prepare(self, sample_rate: int) -> None:
        """As :meth:`BlockProcessor.prepare`.

        Raises:
            LiveError: ``live.rate``: not a rate of :data:`~revithion_stems.live.LIVE_RATES`.
        """
        check_live_rate(sample_rate)
        size = 1 if sample_rate <= 48_000 else 2
        self._design = StftDesign(analysis_frames=4_096 * size, synthesis_frames=512 * size, hop_frames=256 * size)
        self._masks = EvidenceMasks(self._design, sample_rate)
        self._stft = StreamingStft(self._design, self._masks.separate, stems=len(STEMS))

    def process(self, block: Float32, out: Float32) -> None:
        """As :meth:`BlockProcessor.process`."""
        left, right = np.float32(0.5) * block
        parts = np.empty_like(out)
        self._stft.process(np.stack([left + right, left - right]), parts)
        middle, side = parts[:, 0], parts[:, 1]
        np.add(middle, side, out=out[:, 0])
        np.subtract(middle, side, out=out[:, 1])

    def reset(self) -> None:
        """Forgets all input."""
        self._stft.reset()
        self._masks.reset()


class EvidenceMasks:
    """Turns spectra of middle and side of a mix, hop by hop, into those of the stems.

    Args:
        design: Of the spectra.
        sample_rate: Hz.
    """

    def __init__(self, design: StftDesign, sample_rate: int) -> None:
        hz = np.fft.rfftfreq(design.analysis_frames, 1 / sample_rate)
        octaves = np.log2(np.maximum(hz, _PITCH_HZ[0]))
        middle_db = np.array([np.interp(octaves, np.log2(_PITCH_HZ), db) for db in _PITCH_DB])
        side_db = middle_db + np.array(_SIDE_DB)[:, None]
        self._pitch = _NP_PER_DB * np.stack([middle_db, side_db], axis=1).astype(np.float32)  # [stems, 2, bins]
        self._lasting = LastingPower(round(_PAST_S * sample_rate / design.hop_frames / 9), design.bins)
        self._power = np.empty((2, design.bins), np.float32)
        self._picture = np.empty(2)
        self.reset()

    def reset(self) -> None:
        """Forgets all spectra."""
        self._lasting.reset()
        self._power[...] = self._picture[...] = _TINY

    def separate(self, spectrum: Complex64) -> Complex64:
        """The next middle and side, complex64 ``[2, bins]`` → complex64 ``[stems, 2, bins]``, which sum to them."""
        power = np.square(spectrum.real) + np.square(spectrum.imag) + _TINY
        evidence = self._pitch + _SUDDEN * self._suddenness(power) + _CENTRE * self._centre(power)
        weight = np.exp(evidence)
        return spectrum * (weight / weight.sum(axis=0))

    def _suddenness(self, power: Float32) -> Float32:
        """How much more there is at once around a bin than there was in it before; ``[2, bins]``, in nepers."""
        sudden = _nepers(broad_power(power), self._lasting.next(power))
        return np.clip(sudden, -_SUDDEN_RANGE_NP, _SUDDEN_RANGE_NP)

    def _centre(self, power: Float32) -> Float32:
        """How much more there is in the middle than in the side around each bin; ``[bins]``, in nepers."""
        self._power += (1 - _SMOOTHING) * (power - self._power)
        middle, side = (np.convolve(row, np.ones(5, np.float32), mode="same") for row in self._power)
        centre = np.clip(_nepers(middle, side), *_CENTRE_RANGE_NP)
        self._picture += (1 - _PICTURE_SMOOTHING) * (power.sum(axis=1) - self._picture)
        whole_middle, whole_side = self._picture
        # 0 for mono, a half where the side is 30 dB below the middle, almost 1 for usual mixes.
        stereo = np.float32(whole_side / (whole_side + 1e-3 * whole_middle))
        return _NO_CENTRE_NP + stereo * (centre - _NO_CENTRE_NP)


class LastingPower:
    """The median over the past in each bin: of nine hops that lie apart, the newest one among them.

    Args:
        stride: Hops from one of the nine to the next.
        bins: Of middle and side each.
    """

    def __init__(self, stride: int, bins: int) -> None:
        self._stride = stride
        self._past = np.empty((8 * stride + 1, 2, bins), np.float32)  # a ring
        self.reset()

    def reset(self) -> None:
        """Forgets the past: there was silence."""
        self._past[...] = _TINY
        self._hop = 0

    def next(self, power: Float32) -> Float32:
        """Takes the powers of the newest hop, ``[2, bins]``, and returns the medians."""
        self._past[self._hop] = power
        nine = [self._past[self._hop - age * self._stride] for age in range(9)]  # below 0 it counts from the ring's end
        self._hop = (self._hop + 1) % len(self._past)
        return median_of_nine(sort_three(*nine[:3]), sort_three(*nine[3:6]), sort_three(*nine[6:]))


def broad_power(power: Float32) -> Float32:
    """The median over the nine bins, 100 Hz, around each of ``[2, bins]``; beyond the ends the last one goes on."""
    first, last, bins = power[:, :1], power[:, -1:], power.shape[1]
    padded = np.concatenate([*[first] * 4, power, *[last] * 4], axis=1)
    threes = sort_three(padded[:, :-2], padded[:, 1:-1], padded[:, 2:])
    below, here, above = ([row[:, at : at + bins] for row in threes] for at in (0, 3, 6))
    return median_of_nine(below, here, above)


def sort_three(a: Float32, b: Float32, c: Float32) -> tuple[Float32, Float32, Float32]:
    """Sorts three arrays of one shape, at each place: the lowest, the middle one, the highest."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.minimum(low, c), np.maximum(low, np.minimum(high, c)), np.maximum(high, c)


def median_of_nine(a: Sequence[Float32], b: Sequence[Float32], c: Sequence[Float32]) -> Float32:
    """The median, at each place, of three times three arrays that :func:`sort_three` has sorted.

    Five of the nine are as great as the lesser two of the lowest, and as the least of the middle ones: these three are
    not above the median. As many on the other side are not below it. It is the middle one of the three that are left.
    """
    (low_a, low_b, low_c), middle, (high_a, high_b, high_c) = zip(a, b, c, strict=True)
    greatest_low = np.maximum(np.maximum(low_a, low_b), low_c)
    least_high = np.minimum(np.minimum(high_a, high_b), high_c)
    return sort_three(greatest_low, sort_three(*middle)[1], least_high)[1]


def _nepers(power: Float32, other: Float32) -> Float32:
    """The ratio of the amplitudes of two powers, logarithmic."""
    return np.float32(0.5) * (np.log(power) - np.log(other))
