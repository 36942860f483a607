"""What stems are written as: containers, sample formats, and what each can hold."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from revithion_stems.audio import MAX_SAMPLE_RATE
from revithion_stems.errors import RequestError
from revithion_stems.stems import FLOAT_GRID_BITS

_RF64_FROM_BYTES = 4_000_000_000
_OPUS_RATE = 48_000
_STEM_MP4_STEMS = 4


class Container(enum.Enum):
    """File formats; the value is also the file name's extension."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    OGG = "ogg"
    OPUS = "opus"
    M4A = "m4a"
    STEM_MP4 = "stem.mp4"


class BitDepth(enum.Enum):
    """Sample formats of lossless files."""

    INT16 = "16"
    INT24 = "24"
    FLOAT32 = "32f"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """What stems are written as.

    Attributes:
        container: The file format.
        bit_depth: For WAV 16, 24 or 32f (the default); for FLAC 16 or 24 (the default); for M4A and ``.stem.mp4`` 16 or
            24, which are lossless (ALAC), or None (the default), which is lossy (AAC); None for MP3, Ogg and Opus.

    Raises:
        RequestError: The container does not have that bit depth.
    """

    container: Container = Container.WAV
    bit_depth: BitDepth | None = None

    def __post_init__(self) -> None:
        allowed = _BIT_DEPTHS[self.container]
        if self.bit_depth is None:
            object.__setattr__(self, "bit_depth", allowed[0])
        elif self.bit_depth not in allowed:
            choice = " or ".join(depth.value for depth in allowed if depth)
            raise RequestError(
                f"bit depth {self.bit_depth.value} with {self.container.value}: it has {choice or 'no bit depth'}",
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
        return self.bit_depth is None

    @property
    def tracks_per_file(self) -> int:
        """Audio streams in one file: the mix and all stems in a ``.stem.mp4``, else one."""
        return 1 + _STEM_MP4_STEMS if self.container is Container.STEM_MP4 else 1

    def major_format(self, *, frames: int, channels: int) -> str:
        """libsndfile's name of the container for audio of this size: WAV's 32-bit sizes end at 4 GiB, RF64's do not."""
        if self.container is not Container.WAV:
            return self.container.value.upper()
        width = {BitDepth.INT16: 2, BitDepth.INT24: 3}.get(self.bit_depth or BitDepth.FLOAT32, 4)
        return "RF64" if frames * channels * width > _RF64_FROM_BYTES else "WAV"

    def stored_length(self, *, frames: int, sample_rate: int) -> tuple[int, int]:
        """Frames and rate that a file has: as given, except for Opus, which is always resampled to 48 kHz."""
        if self.container is not Container.OPUS:
            return frames, sample_rate
        return max(1, (frames * _OPUS_RATE + sample_rate // 2) // sample_rate), _OPUS_RATE

    def check_source(self, *, channels: int, sample_rate: int) -> None:
        """Raises :class:`RequestError` if a source of this layout does not fit the format."""
        limits = (_LOSSY_LIMITS if self.lossy else _LOSSLESS_LIMITS).get(self.container)
        if limits is None or (channels <= limits.channels and sample_rate in limits.sample_rates):
            return
        if channels > limits.channels:
            problem = f"{channels} channels: it has at most {limits.channels}"
        elif isinstance(limits.sample_rates, range):
            problem = f"{sample_rate} Hz: it goes up to {limits.sample_rates[-1]} Hz"
        else:
            problem = f"{sample_rate} Hz: its rates are {', '.join(map(str, limits.sample_rates))}"
        raise RequestError(
            f"{self.container.value} can't hold {problem}",
            hint="Use --format wav, which keeps every layout.",
            code="request.format",
        )

    def check_stems(self, names: Sequence[str]) -> None:
        """Raises :class:`RequestError` if the format can't hold a set of these stems."""
        if self.container is Container.STEM_MP4 and len(names) != _STEM_MP4_STEMS:
            raise RequestError(
                f"{self.container.value} holds {_STEM_MP4_STEMS} stems, not {len(names)} ({', '.join(names)})",
                hint="Use a model with four stems, without --two-stems, --stems and a residual of its own, or another "
                "--format.",
                code="request.format",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    channels: int
    sample_rates: Collection[int]


_ALAC = _Limits(channels=2, sample_rates=range(1, MAX_SAMPLE_RATE + 1))
_AAC = _Limits(
    channels=2,
    sample_rates=(7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
)

_LOSSLESS_LIMITS = {
    Container.FLAC: _Limits(channels=8, sample_rates=range(1, 655_351)),
    Container.M4A: _ALAC,
    Container.STEM_MP4: _ALAC,
}
_LOSSY_LIMITS = {
    Container.MP3: _Limits(channels=2, sample_rates=(8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
    Container.OGG: _Limits(channels=8, sample_rates=range(1, 192_001)),
    Container.OPUS: _Limits(channels=2, sample_rates=range(1, MAX_SAMPLE_RATE + 1)),
    Container.M4A: _AAC,
    Container.STEM_MP4: _AAC,
}

# The first is what a format has where nothing was asked for.
_BIT_DEPTHS: dict[Container, tuple[BitDepth | None, ...]] = {
    Container.WAV: (BitDepth.FLOAT32, BitDepth.INT24, BitDepth.INT16),
    Container.FLAC: (BitDepth.INT24, BitDepth.INT16),
    Container.MP3: (None,),
    Container.OGG: (None,),
    Container.OPUS: (None,),
    Container.M4A: (None, BitDepth.INT24, BitDepth.INT16),
    Container.STEM_MP4: (None, BitDepth.INT24, BitDepth.INT16),
}
