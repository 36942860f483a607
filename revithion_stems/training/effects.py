"""What augmentation does to a stem: level, panorama, equaliser, room, speed, and a trip through MP3. Pure functions.

All take and give float32 ``[2, frames]`` with frame 0 where it was, and change nothing in place.
"""

from __future__ import annotations

import io
import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal
import soxr

from revithion_stems.audio import Float32
from revithion_stems.errors import EngineError

Sections: TypeAlias = npt.NDArray[np.float64]
"""Biquads ``[sections, 6]``: b0 b1 b2 a0 a1 a2, a0 = 1."""

SPEED_MARGIN_FRAMES = 512
"""How many frames more than its result lasts :func:`change_speed` wants: what its filter sees beyond the end."""

_EQ_Q = 0.7
_PREDELAY_S = 0.01
_MP3_PEAK = 0.9
"""Largest sample that goes to the encoder: its decoder may clip beyond full scale."""


def pan_gains(position: float) -> Float32:
    """Gains ``[2, 1]`` of both sides for −1 (left) to 1 (right); at 0 both are 1. Their power is 2 at all positions."""
    angle = (1.0 + position) * math.pi / 4
    return np.array([[math.cos(angle)], [math.sin(angle)]], np.float32) * np.float32(math.sqrt(2.0))


def shelf_or_peak(kind: str, frequency_hz: float, gain_db: float, sample_rate: int) -> Sections:
    """One band of an equaliser as one biquad ``[1, 6]``.

    Args:
        kind: ``low`` or ``high`` shelf, or ``peak``.
        frequency_hz: Middle of its slope or peak, below half the rate.
        gain_db: At the peak, or of the shelf.
        sample_rate: Hz.

    Source:
        R. Bristow-Johnson, "Cookbook formulae for audio equalizer biquad filter coefficients" (W3C note, 2021).
    """
    a = 10.0 ** (gain_db / 40)
    w = 2 * math.pi * frequency_hz / sample_rate
    cos, alpha = math.cos(w), math.sin(w) / (2 * _EQ_Q)
    if kind == "peak":
        rows = [1 + alpha * a, -2 * cos, 1 - alpha * a, 1 + alpha / a, -2 * cos, 1 - alpha / a]
    else:
        sign = 1.0 if kind == "low" else -1.0  # the high shelf is the low one mirrored at a quarter of the rate
        root = 2 * math.sqrt(a) * alpha
        rows = [
            a * ((a + 1) - sign * (a - 1) * cos + root),
            sign * 2 * a * ((a - 1) - sign * (a + 1) * cos),
            a * ((a + 1) - sign * (a - 1) * cos - root),
            (a + 1) + sign * (a - 1) * cos + root,
            sign * -2 * ((a - 1) + sign * (a + 1) * cos),
            (a + 1) + sign * (a - 1) * cos - root,
        ]
    return np.array([rows]) / rows[3]


def equalise(samples: Float32, sections: Sections) -> Float32:
    """The samples through biquads, from silence on."""
    # In float64: the poles of a low shelf lie so close to 1 that float32 would add noise.
    filtered: Any = scipy.signal.sosfilt(sections, samples.astype(np.float64), axis=1)
    return filtered.astype(np.float32)


def add_room(samples: Float32, *, decay_s: float, wet_db: float, seed: int, sample_rate: int) -> Float32:
    """Adds the sound of a room: noise that decays exponentially, after a short pause, independent on both sides.

    Args:
        samples: The dry sound, which stays as it is.
        decay_s: Time in which the room's sound falls by 60 dB.
        wet_db: Power of the room's sound, relative to that of the dry sound (were it white).
        seed: Of the noise.
        sample_rate: Hz.

    Source:
        J. A. Moorer, "About this reverberation business", Computer Music Journal 3(2), 1979: decaying noise as the
        impulse response of a good hall.
    """
    frames = samples.shape[1]
    length = max(1, min(round(decay_s * sample_rate), frames))
    noise = np.random.default_rng(seed).standard_normal((2, length), dtype=np.float32)
    noise *= np.exp(np.arange(length, dtype=np.float32) * np.float32(-math.log(1000.0) / (decay_s * sample_rate)))
    noise *= np.float32(10 ** (wet_db / 20)) / np.sqrt(np.square(noise).sum(axis=1, keepdims=True))
    pause = min(round(_PREDELAY_S * sample_rate), frames)
    size = scipy.fft.next_fast_len(frames - pause + length, real=True)
    dry_spectrum: Any = scipy.fft.rfft(samples[:, : frames - pause], size)
    wet: Any = scipy.fft.irfft(dry_spectrum * scipy.fft.rfft(noise, size), size)
    mixed = samples.copy()
    mixed[:, pause:] += wet[:, : frames - pause]
    return mixed


def frames_for_speed(frames: int, speed: float) -> int:
    """How many frames :func:`change_speed` wants for a result of ``frames``."""
    return frames if speed == 1.0 else math.ceil(frames * speed) + SPEED_MARGIN_FRAMES


def change_speed(samples: Float32, speed: float, frames: int, sample_rate: int) -> Float32:
    """Plays faster and higher (``speed`` > 1) or slower and lower, as a tape does.

    Args:
        samples: ``[2, frames_for_speed(frames, speed)]`` or longer.
        speed: Ratio of the rates.
        frames: Length of the result.
        sample_rate: Hz.
    """
    if speed == 1.0:
        return samples[:, :frames]
    used = np.ascontiguousarray(samples[:, : frames_for_speed(frames, speed)].T)
    # Medium quality: 16 bits, linear phase; its filter costs half of the high one's.
    return np.ascontiguousarray(soxr.resample(used, sample_rate * speed, sample_rate, quality="MQ")[:frames].T)


def through_mp3(samples: Float32, *, kbits: int, sample_rate: int) -> Float32:
    """The samples coded as MP3 at a constant bit rate and decoded again: same length, same place.

    Args:
        samples: Any level: what is beyond full scale is brought below it for the trip.
        kbits: kbit/s, one of the rates of the format.
        sample_rate: Hz, one of the rates of the format.

    Raises:
        EngineError: The FFmpeg that PyAV carries has no MP3 encoder, or refuses these rates.
    """
    import av
    from av.error import FFmpegError

    peak = float(np.abs(samples).max(initial=0.0))
    if peak == 0.0:
        return samples
    scale = np.float32(min(1.0, _MP3_PEAK / peak))
    frames = samples.shape[1]
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp3") as container:
            # Level 7 of 9 takes half the time of LAME's default and sounds (and measures) nearly the same.
            stream: Any = container.add_stream(
                "libmp3lame", rate=sample_rate, layout="stereo", options={"compression_level": "7"}
            )
            stream.bit_rate = kbits * 1000
            stream.codec_context.format = "fltp"
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples * scale), format="fltp", layout="stereo")
            frame.sample_rate = sample_rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        file.seek(0)
        with av.open(file, "r", format="mp3") as container:
            # The encoder's delay and padding stand in the file's first frame; FFmpeg drops them.
            coded = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    except (FFmpegError, ValueError) as exc:
        raise EngineError(
            f"MP3 at {kbits} kbit/s and {sample_rate} Hz can't be encoded here: {exc}",
            hint="Set mp3_probability = 0, or use one of the rates of MP3.",
            code="engine.failed",
        ) from exc
    result = np.zeros((2, frames), np.float32)
    count = min(frames, coded.shape[1])
    np.divide(coded[:, :count], scale, out=result[:, :count])
    return result
