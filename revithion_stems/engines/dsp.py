"""Separation without weights, so that the first run works with no network at all. Quality is modest and said so.

On a spectrogram, three soft masks share out the mix and the rest is ``other``:

* drums: harmonic/percussive separation by median filters (Fitzgerald, DAFx 2010) — what stays when magnitudes are
  smoothed across frequency is percussive, what stays when they are smoothed across time is harmonic;
* bass: the harmonic part below about 200 Hz;
* vocals: the harmonic part in the middle of the stereo image (Avendano, WASPAA 2003), between 200 Hz and 12 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.ndimage

from revithion_stems.audio import Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.engines import EngineOptions, Separator, WeightsPath
from revithion_stems.engines import demucs_spectrogram as spectrogram

_MEDIAN_SPAN = 17
_BASS_HZ, _BASS_WIDTH_HZ = 200.0, 60.0
_VOCALS_TOP_HZ, _VOCALS_TOP_WIDTH_HZ = 12_000.0, 2_000.0
_CENTRE_SHARPNESS = 4.0
_TINY = np.float32(1e-12)


def load(spec: ModelSpec, paths: Sequence[WeightsPath], options: EngineOptions) -> list[Separator]:
    """The one separator; see :data:`revithion_stems.engines.Factory`."""
    return [DspSeparator(spec)]


class DspSeparator:
    """Median-filter and mid/side masks; see the module's docstring. Stateless."""

    remark: str | None = None
    settled = True

    def __init__(self, spec: ModelSpec) -> None:
        self._order = spec.stems
        frequencies = np.arange(spectrogram.N_FFT // 2) * spec.sample_rate / spectrogram.N_FFT
        self._low = _slope(frequencies, _BASS_HZ, _BASS_WIDTH_HZ)
        self._voice_band = (1 - self._low) * _slope(frequencies, _VOCALS_TOP_HZ, _VOCALS_TOP_WIDTH_HZ)

    def begin(self) -> None:
        """See :meth:`revithion_stems.engines.Separator.begin`; nothing is learnt here."""

    def separate_segment(self, mix: Float32) -> Float32:
        """See :meth:`revithion_stems.engines.Separator.separate_segment`."""
        frames = mix.shape[1]
        # Demucs' spectrogram leaves out the outermost columns: a margin on both sides keeps them off the audio.
        margin = spectrogram.N_FFT
        padded = np.pad(mix, ((0, 0), (margin, margin)))
        bins = spectrogram.N_FFT // 2
        parts = spectrogram.forward(padded).reshape(2, 2, bins, -1)
        power = np.square(parts).sum(axis=1)  # [channel, bin, column]
        magnitude = np.sqrt(power.sum(axis=0))  # [bin, column]
        percussive = np.square(_median(magnitude, (_MEDIAN_SPAN, 1)))
        harmonic = np.square(_median(magnitude, (1, _MEDIAN_SPAN)))
        drums = percussive / (percussive + harmonic + _TINY)
        tonal = 1 - drums
        cross = np.abs((parts[0] * parts[1]).sum(axis=0))  # |Re L·conj(R)|: 1 after scaling where L equals R
        centre = (2 * cross / (power.sum(axis=0) + _TINY)).clip(0, 1) ** _CENTRE_SHARPNESS
        masks = {
            "drums": drums,
            "bass": tonal * self._low[:, None],
            "vocals": tonal * centre * self._voice_band[:, None],
        }
        masks["other"] = 1 - sum(masks.values())
        stems = [
            spectrogram.inverse(parts * masks[name][None, None], padded.shape[1])[:, margin : margin + frames]
            for name in self._order
        ]  # each [2, frames]
        return np.stack(stems).astype(np.float32, copy=False)


def _slope(frequencies: Any, edge_hz: float, width_hz: float) -> Float32:
    """1 below the edge, 0 above it, with a raised-cosine step of the given width in between."""
    position = np.clip((frequencies - edge_hz) / width_hz + 0.5, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * position)).astype(np.float32)


def _median(magnitude: Float32, size: tuple[int, int]) -> Float32:
    return scipy.ndimage.median_filter(magnitude, size=size, mode="nearest")
