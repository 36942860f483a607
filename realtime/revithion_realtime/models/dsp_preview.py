"""Live stems without a network: where a sound is in the stereo picture, how suddenly it came, and how high it is.

Middle (L+R)/2 and side (L−R)/2 are separated each for itself, by soft masks that sum to one in every bin. For each stem
the evidence is added up in dB, and a mask is the stem's share of the total: 10^(dB/20) over the sum of the four. What
counts as evidence:

- *Pitch.* What is typical of a stem at a frequency: the low band is the bass', and voices have little above 10 kHz.
- *Suddenness.* A drum stroke is a vertical line in a spectrogram, a tone a horizontal one. The median over the
  neighbouring frequencies keeps the former, the median over the past the latter; their ratio tells them apart.
- *Centre.* Voices, bass, kick and snare are mixed to the middle; guitars and keyboards to the sides. The ratio of the
  powers of middle and side, smoothed, is high for what is at the centre.

The figures of the table are rounded from a least-squares fit to a few multitracks. A mono input has no side: its centre
is then no evidence for voices, and the other two decide.

Source: Fitzgerald: Harmonic/percussive separation using median filtering (DAFx 2010), with a median over the past in
place of the one around the frame; Avendano, Jot: A frequency-domain approach to multichannel upmix (2004).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from revithion_realtime.models.asymmetric_stft import Complex64, StftDesign, StreamingStft
from revithion_realtime.models.rate_conversion import check_live_rate
from revithion_stems.audio import Float32

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

_SUDDEN_DB: Final = np.array([(1.2, 0.4), (-0.5, 0.3), (-0.2, -1.0), (-0.1, 0.3)], np.float32)[:, :, None]
"""Evidence for each stem, in the middle and in the side, for each dB of suddenness."""

_CENTRE_DB: Final = np.array([(-0.2, -0.5), (0.1, -0.4), (-0.9, 1.3), (1.0, -0.4)], np.float32)[:, :, None]
"""The same for each dB of centre."""

_SUDDEN_RANGE_DB: Final = 24.0
_CENTRE_RANGE_DB: Final = (-6.0, 24.0)
_NO_CENTRE_DB: Final = np.float32(14.0)  # stands for the centre where there is no stereo picture
_NEIGHBOURS: Final = 17  # bins, 180 Hz, of the median over frequency
_PAST_S: Final = 0.2  # of the median over the past
_SMOOTHING: Final = 0.6  # of powers, from hop to hop
_PICTURE_SMOOTHING: Final = 0.99
_TINY: Final = np.float32(1e-9)


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
        self._stft.process(block, out)

    def reset(self) -> None:
        """Forgets all input."""
        self._stft.reset()
        self._masks.reset()


class EvidenceMasks:
    """Turns spectra of a stereo mix, hop by hop, into those of the stems.

    Args:
        design: Of the spectra.
        sample_rate: Hz.
    """

    def __init__(self, design: StftDesign, sample_rate: int) -> None:
        hz = np.fft.rfftfreq(design.analysis_frames, 1 / sample_rate)
        octaves = np.log2(np.maximum(hz, _PITCH_HZ[0]))
        pitch = np.array([np.interp(octaves, np.log2(_PITCH_HZ), db) for db in _PITCH_DB])
        side = pitch + np.array(_SIDE_DB)[:, None]
        self._pitch_db = np.stack([pitch, side], axis=1).astype(np.float32)  # [stems, middle and side, bins]
        past = round(_PAST_S * sample_rate / design.hop_frames) | 1
        self._past = np.zeros((past, 2, design.bins), np.float32)  # a ring of magnitudes
        self._power = np.zeros((2, design.bins), np.float32)
        self._picture = np.zeros(2)
        self._hop = 0

    def reset(self) -> None:
        """Forgets all spectra."""
        self._past[...] = 0.0
        self._power[...] = 0.0
        self._picture[...] = 0.0
        self._hop = 0

    def separate(self, spectrum: Complex64) -> Complex64:
        """The next spectrum, complex64 ``[2, bins]`` → complex64 ``[stems, 2, bins]``, which sum to it."""
        middle_side = np.stack([spectrum[0] + spectrum[1], spectrum[0] - spectrum[1]]) / np.float32(2)
        magnitude = np.abs(middle_side)
        sudden, centre = self._suddenness_db(magnitude), self._centre_db(magnitude**2)
        evidence_db = self._pitch_db + _SUDDEN_DB * sudden + _CENTRE_DB * centre
        weight = np.exp(np.float32(math.log(10) / 20) * evidence_db)
        middle, side = np.moveaxis(middle_side * (weight / weight.sum(axis=0)), 1, 0)
        return np.stack([middle + side, middle - side], axis=1)

    def _suddenness_db(self, magnitude: Float32) -> Float32:
        """How much more there is at once around a bin than there was in it before; ``[2, bins]``."""
        self._past[self._hop] = magnitude
        self._hop = (self._hop + 1) % len(self._past)
        lasting = _median(self._past, axis=0)
        padded = np.pad(magnitude, ((0, 0), (_NEIGHBOURS // 2, _NEIGHBOURS // 2)), mode="edge")
        broad = _median(np.lib.stride_tricks.sliding_window_view(padded, _NEIGHBOURS, axis=1), axis=2)
        sudden = 20 * np.log10((broad + _TINY) / (lasting + _TINY))
        return np.clip(sudden, -_SUDDEN_RANGE_DB, _SUDDEN_RANGE_DB)

    def _centre_db(self, power: Float32) -> Float32:
        """How much more there is in the middle than in the side around each bin; ``[bins]``."""
        self._power += (1 - _SMOOTHING) * (power - self._power)
        middle, side = (np.convolve(row, np.ones(5, np.float32), mode="same") for row in self._power)
        centre = np.clip(10 * np.log10((middle + _TINY) / (side + _TINY)), *_CENTRE_RANGE_DB)
        self._picture += (1 - _PICTURE_SMOOTHING) * (power.sum(axis=1) - self._picture)
        whole_middle, whole_side = self._picture
        # 0 for mono, a half where the side is 30 dB below the middle, almost 1 for usual mixes.
        stereo = np.float32(whole_side / (whole_side + 1e-3 * whole_middle + _TINY))
        return _NO_CENTRE_DB + stereo * (centre - _NO_CENTRE_DB)


def _median(values: Float32, axis: int) -> Float32:
    """Of an odd number of values; ``np.median`` is several times slower."""
    middle = values.shape[axis] // 2
    return np.take(np.partition(values, middle, axis=axis), middle, axis=axis)
