"""Audio in memory: samples with their rate, never guessed from a shape and never changed in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from revithion_stems.errors import InputError

Float32: TypeAlias = npt.NDArray[np.float32]

BLOCK_FRAMES = 65_536
"""What sources are read in: sums over blocks round alike, wherever the audio comes from."""

MAX_CHANNELS = 8
MIN_SAMPLE_RATE = 4_000
MAX_SAMPLE_RATE = 768_000
MAX_PEAK = 1e12
"""Largest magnitude that can be separated: power spectra of much larger values leave float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AudioBuffer:
    """Samples and their rate.

    Attributes:
        samples: float32 ``[channels, frames]``, full scale ±1.0 (values beyond are allowed in float sources).
            The array is made read-only.
        sample_rate: Hz, 4000–768000.

    Raises:
        InputError: Not two-dimensional, no or more than 8 channels, no frames, a rate out of range, NaN or Inf.
    """

    samples: Float32
    sample_rate: int

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples)
        if samples.ndim != 2:
            raise InputError(
                f"samples have {samples.ndim} dimensions, expected 2: [channels, frames]",
                hint="Add a channel axis to mono audio: samples[None, :].",
                code="input.shape",
            )
        check_layout(samples.shape[0], samples.shape[1], self.sample_rate, origin="samples")
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        check_finite(samples, start_frame=0, origin="samples")
        if samples is self.samples:
            samples = samples.view()
        samples.flags.writeable = False
        object.__setattr__(self, "samples", samples)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.samples.shape[0]

    @property
    def frames(self) -> int:
        """Number of frames (samples per channel)."""
        return self.samples.shape[1]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate

    def blocks(self, block_frames: int = BLOCK_FRAMES) -> Iterator[Float32]:
        """The samples in blocks ``[channels, ≤ block_frames]``, the same ones as those of a file are read in."""
        for at in range(0, self.frames, block_frames):
            yield self.samples[:, at : at + block_frames]


def check_layout(channels: int, frames: int, sample_rate: int, *, origin: str) -> None:
    """Raises :class:`InputError` unless there are 1–8 channels, at least one frame, and a rate in range."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(
            f"{origin}: {channels} channels, allowed are 1 to {MAX_CHANNELS}",
            hint="Split the file into groups of at most 8 channels and separate each.",
            code="input.channels",
        )
    if frames < 1:
        raise InputError(
            f"{origin}: holds no audio (0 frames)",
            hint="Check that the file was exported completely.",
            code="input.empty",
        )
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise InputError(
            f"{origin}: sample rate {sample_rate} Hz, allowed are {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}",
            hint="Convert the file to a usual rate such as 44100 or 48000 Hz.",
            code="input.sample_rate",
        )


def check_finite(samples: Float32, *, start_frame: int, origin: str) -> None:
    """Raises :class:`InputError` naming the first frame of ``samples`` that holds NaN or infinity.

    Args:
        samples: ``[channels, frames]``.
        start_frame: Position of the block in its source, for the message.
        origin: Named in the message.
    """
    finite = np.isfinite(samples).all(axis=0)
    if not finite.all():
        frame = start_frame + int(np.argmin(finite))
        raise InputError(
            f"{origin}: sample at frame {frame} is not a finite number (NaN or infinity)",
            hint="Export the audio again; a plug-in or a converter wrote invalid samples.",
            code="input.not_finite",
        )


def check_peak(peak: float, *, origin: str) -> None:
    """Raises :class:`InputError` if a source's largest magnitude is beyond :data:`MAX_PEAK`."""
    if peak > MAX_PEAK:
        raise InputError(
            f"{origin}: its largest sample is {peak:.3g}, allowed are up to {MAX_PEAK:g} (full scale is 1)",
            hint="These are hardly samples: export the audio again, or correct the format in the file's header.",
            code="input.peak",
        )


def channel_pairs(channels: int) -> tuple[tuple[int, ...], ...]:
    """Channels grouped for stereo models: neighbours in twos, a last odd one alone.

    Mono is one group of one; stereo one group of two; 5.1 in file order is (L R) (C LFE) (Ls Rs).
    """
    return tuple(tuple(range(first, min(first + 2, channels))) for first in range(0, channels, 2))
