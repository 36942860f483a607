"""Encoders: blocks of float32 in, a finished file out, for every output format.

libsndfile writes WAV and Ogg Vorbis; FFmpeg's libraries encode FLAC, MP3, Opus, AAC and ALAC. The same input gives the
same bytes: no dates, no random numbers. Frame 0 of what was written is frame 0 of what decoders give, and nothing is
added or lost at the end, because the delay and padding of lossy codecs stand in the file.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from revithion_stems.audio import Float32
from revithion_stems.errors import InputError
from revithion_stems.mp4_boxes import find_last_box
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.tags import Tags

_MP4 = (Container.M4A, Container.STEM_MP4)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackInfo:
    """One audio stream of a file: its name, such as ``vocals``, and its tags. The first one's are the file's."""

    name: str
    tags: Tags


class Encoder(Protocol):
    """A file being written. One thread at a time.

    Its methods raise :class:`OSError`, :class:`RuntimeError` or :class:`ValueError` where writing fails, for
    :func:`~revithion_stems.output_errors.output_errors` to translate.
    """

    def write(self, block: Float32) -> None:
        """Appends float32 ``[tracks, channels, frames]``."""
        ...

    def close(self) -> None:
        """Finishes the file and closes it."""
        ...

    def abort(self) -> None:
        """Closes the file without finishing it; harmless after :meth:`close`."""
        ...


def open_encoder(
    path: Path,
    output_format: OutputFormat,
    *,
    tracks: Sequence[TrackInfo],
    channels: int,
    sample_rate: int,
    frames: int,
) -> Encoder:
    """Starts a file.

    Args:
        path: What to write; an existing file is replaced.
        output_format: Must be able to hold the layout: see :meth:`OutputFormat.check_source`.
        tracks: One, or for ``.stem.mp4`` five: the mix and four stems.
        channels: 1–8.
        sample_rate: Hz.
        frames: How many there will be.

    Raises:
        OSError: The file can't be made.
        RuntimeError: The encoder can't be opened.
    """
    if output_format.container in (Container.WAV, Container.OGG):
        from revithion_stems.sndfile_encoder import SndfileEncoder as Chosen
    elif output_format.container in _MP4:
        from revithion_stems.mp4_encoder import Mp4Encoder as Chosen
    else:
        from revithion_stems.av_encoder import AvEncoder as Chosen
    return Chosen(path, output_format, tracks=tracks, channels=channels, sample_rate=sample_rate, frames=frames)


def as_samples(block: Float32, bit_depth: BitDepth | None) -> Any:
    """Float samples as a codec takes them over without scaling or rounding again.

    Returns:
        The same shape; int16 for 16 bits, int32 with eight zero bits below for 24 bits, else ``block`` itself.
    """
    match bit_depth:
        case BitDepth.INT16:
            return np.clip(np.rint(block * np.float32(2.0**15)), -(2**15), 2**15 - 1).astype(np.int16)
        case BitDepth.INT24:
            return np.clip(np.rint(block * np.float32(2.0**23)), -(2**23), 2**23 - 1).astype(np.int32) << 8
        case _:
            return block


def check_encoded(
    path: Path, output_format: OutputFormat, *, tracks: int, channels: int, sample_rate: int, frames: int
) -> None:
    """Looks at what was written, because not every failed write is reported when a file is closed.

    Args:
        path: The finished file.
        output_format: What it was written as.
        tracks: Audio streams that it should have.
        channels: Of the source.
        sample_rate: Of the source, in Hz.
        frames: Of the source.

    Raises:
        OSError: It is not whole.
        RuntimeError: It can't be read at all.
        ValueError: It ends early.
    """
    if output_format.container is Container.STEM_MP4:
        channels = 2
    frames, sample_rate = output_format.stored_length(frames=frames, sample_rate=sample_rate)
    expected = [(channels, sample_rate, frames)] * tracks
    found = _mp4_streams(path) if output_format.container in _MP4 else [_sndfile_stream(path, output_format)]
    if found != expected:
        raise OSError(errno.EIO, f"streams of (channels, rate, frames) {found} were written instead of {expected}")


def _sndfile_stream(path: Path, output_format: OutputFormat) -> tuple[int, int, int]:
    import soundfile

    from revithion_stems.audio_files import AudioReader, soundfile_name

    if output_format.container is not Container.MP3:
        with soundfile.SoundFile(soundfile_name(path)) as file:
            file.seek(file.frames - 1)  # a header may announce what is not there
            return file.channels, file.samplerate, file.frames - 1 + len(file.read(1))
    try:  # an MP3's header tells what was meant to be written
        with AudioReader(path) as reader:
            return reader.info.channels, reader.info.sample_rate, sum(block.shape[1] for block in reader.blocks())
    except InputError as exc:
        raise OSError(errno.EIO, exc.message) from exc


def _mp4_streams(path: Path) -> list[tuple[int, int, int]]:
    """Of an MP4, which is whole if it ends with its index."""
    import av

    with path.open("rb") as file:
        find_last_box(file, b"moov", 0, path.stat().st_size)
        file.seek(0)
        with av.open(file, "r", format="mov") as container:
            return [
                (stream.channels, stream.rate, round((stream.duration or 0) * (stream.time_base or 0) * stream.rate))
                for stream in container.streams.audio
            ]
