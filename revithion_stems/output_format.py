"""What stems are written as: containers, sample formats, and what each can hold."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass

from revithion_stems.errors import RequestError
from revithion_stems.stems import FLOAT_GRID_BITS

_RF64_FROM_BYTES = 4_000_000_000


class Container(enum.Enum):
    """File formats; the value is also the file name's extension."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    OGG = "ogg"


class BitDepth(enum.Enum):
    """Sample formats of WAV and FLAC."""

    INT16 = "16"
    INT24 = "24"
    FLOAT32 = "32f"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """What stems are written as.

    Attributes:
        container: The file format.
        bit_depth: For WAV 16, 24 or 32f (the default); for FLAC 16 or 24 (the default); None for MP3 and Ogg.

    Raises:
        RequestError: The container does not have that bit depth.
    """

    container: Container = Container.WAV
    bit_depth: BitDepth | None = None

    def __post_init__(self) -> None:
        allowed = _BIT_DEPTHS[self.container]
        if self.bit_depth is None and allowed:
            object.__setattr__(self, "bit_depth", allowed[0])
        elif self.bit_depth is not None and self.bit_depth not in allowed:
            choice = f"has {' or '.join(d.value for d in allowed)}" if allowed else "has no bit depth"
            raise RequestError(
                f"bit depth {self.bit_depth.value} with {self.container.value}: it {choice}",
                hint="Correct --bit-depth, or choose another --format.",
                code="request.bit_depth",
            )

    @property
    def grid_bits(self) -> int:
        """Finest grid of the samples, for :func:`revithion_stems.stems.close_null`."""
        return {BitDepth.INT16: 15, BitDepth.INT24: 23}.get(self.bit_depth or BitDepth.FLOAT32, FLOAT_GRID_BITS)

    @property
    def clips(self) -> bool:
        """Whether values beyond full scale are lost."""
        return self.bit_depth is not BitDepth.FLOAT32

    @property
    def lossy(self) -> bool:
        """Whether decoding gives other samples than were encoded."""
        return self.container in (Container.MP3, Container.OGG)

    def major_format(self, *, frames: int, channels: int) -> str:
        """libsndfile's name of the container for audio of this size: WAV's 32-bit sizes end at 4 GiB, RF64's do not."""
        if self.container is not Container.WAV:
            return self.container.value.upper()
        width = {BitDepth.INT16: 2, BitDepth.INT24: 3}.get(self.bit_depth or BitDepth.FLOAT32, 4)
        return "RF64" if frames * channels * width > _RF64_FROM_BYTES else "WAV"

    def check_source(self, *, channels: int, sample_rate: int) -> None:
        """Raises :class:`RequestError` if a source of this layout does not fit the format."""
        limits = _LIMITS.get(self.container)
        if limits is None or (channels <= limits.channels and sample_rate in limits.sample_rates):
            return
        raise RequestError(
            f"{self.container.value} can't hold {channels} channels at {sample_rate} Hz (at most {limits.channels} "
            f"channels, at most {max(limits.sample_rates)} Hz)",
            hint="Use --format wav, which keeps every layout.",
            code="request.format",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    channels: int
    sample_rates: Collection[int]


_LIMITS = {
    Container.FLAC: _Limits(channels=8, sample_rates=range(1, 655_351)),
    Container.MP3: _Limits(channels=2, sample_rates=(8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
    Container.OGG: _Limits(channels=8, sample_rates=range(1, 192_001)),
}

_BIT_DEPTHS: dict[Container, tuple[BitDepth, ...]] = {
    Container.WAV: (BitDepth.FLOAT32, BitDepth.INT24, BitDepth.INT16),
    Container.FLAC: (BitDepth.INT24, BitDepth.INT16),
    Container.MP3: (),
    Container.OGG: (),
}
