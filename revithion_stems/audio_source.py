"""What reads one kind of audio file: the interface that :class:`~revithion_stems.audio_files.AudioReader` builds on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from revithion_stems.audio import Float32
from revithion_stems.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """What a file's header says.

    Attributes:
        channels: 1–8.
        sample_rate: Hz.
        frames: Announced length. A damaged header may announce another length than the data has, and of lossy streams
            it may be an estimate; only the length that was read counts.
        format: Container: libsndfile's major format such as ``WAV``, or FFmpeg's name such as ``matroska``.
        subtype: Sample format: libsndfile's such as ``PCM_24``, or FFmpeg's codec such as ``aac``.
        exact_bits: Bits of an integer PCM source that float32 holds exactly, or None (others, or not known).
    """

    channels: int
    sample_rate: int
    frames: int
    format: str
    subtype: str
    exact_bits: int | None

    @property
    def duration_s(self) -> float:
        """Announced length in seconds."""
        return self.frames / self.sample_rate


class AudioSource(Protocol):
    """A file that was opened by a decoder. One thread at a time."""

    info: AudioInfo
    strict: bool
    """Whether fewer frames than announced are an error; otherwise :meth:`shortfall` tells it."""

    def decode(self, block_frames: int) -> Iterator[Float32]:
        """The audio in blocks ``[channels, ≤ block_frames]``, all full but the last. Once only: then open it anew."""
        ...

    def shortfall(self, frames: int) -> str | None:
        """What to tell people if no more than ``frames`` frames came out; None if the file is whole."""
        ...

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        ...


def truncated(path: Path, done: int, frames: int, reason: str) -> InputError:
    """The error of a file that gave ``done`` of ``frames`` frames."""
    return InputError(
        f"{path} is damaged or truncated: {done} of {frames} frames could be read ({reason.rstrip('.')})",
        hint="Copy or export it again; a converter may rescue what is left of it.",
        code="input.truncated",
    )


def cut_short(done: int, frames: int) -> str:
    """What to tell people of a file that gave no more than ``done`` of ``frames`` frames, and was used nevertheless."""
    return f"was cut short: it announces {frames} frames, of which {done} are there; what is there was read"
