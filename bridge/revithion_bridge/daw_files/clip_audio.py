"""Audio on its way from files into WAV: for DAWs that can't or may not read a file as it is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np

from revithion_bridge.daw.bus_plan import PlannedClip
from revithion_bridge.errors import bridge_error
from revithion_stems.audio import Float32
from revithion_stems.audio_files import AudioInfo, AudioReader, read_info
from revithion_stems.digests import sha256_file
from revithion_stems.encoders import TrackInfo, check_encoded, open_encoder
from revithion_stems.errors import RevithionError
from revithion_stems.output_errors import output_errors
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.tags import Tags, read_tags

_NO_TAGS = Tags()


def write_wav(
    source: Path, path: Path, *, start_frame: int = 0, frames: int | None = None, time_reference: int | None = None
) -> None:
    """Writes WAV with the source's tags, sample by sample as it decodes.

    16 and 24 bits stay; all others, lossy ones too, become 32-bit float. Memory does not grow with the length.

    Args:
        source: What is read.
        path: What is written; an existing file is replaced.
        start_frame: Which frame of the source comes first.
        frames: How many there are; None for all that follow.
        time_reference: Of BWF: where the first frame is, in frames from the project's start. None leaves the source's.

    Raises:
        InputError: The source can't be read, or ends before the last frame.
        OutputError: The file can't be written.
    """
    tags = read_tags(source)
    if time_reference is not None:
        tags = dataclasses.replace(tags, time_reference=time_reference)
    with AudioReader(source) as reader, output_errors(path):
        info = reader.info
        left = info.frames - start_frame if frames is None else frames
        layout = {"channels": info.channels, "sample_rate": info.sample_rate, "frames": left}
        with wav_file(path, bit_depth=_bit_depth(info), tags=tags, **layout) as write:
            for block in _blocks_from(reader, start_frame):
                write(block[:, :left])
                left -= min(left, block.shape[1])


@contextlib.contextmanager
def wav_file(
    path: Path,
    *,
    channels: int,
    sample_rate: int,
    frames: int,
    bit_depth: BitDepth = BitDepth.FLOAT32,
    tags: Tags = _NO_TAGS,
) -> Generator[Callable[[Float32], None]]:
    """A WAV that is complete when all goes well inside; an existing file is replaced.

    Gives what writes the next block, float32 ``[channels, frames]``.

    Raises:
        OSError, RuntimeError, ValueError: It can't be written, or is not whole; for
            :func:`~revithion_stems.output_errors.output_errors`.
    """
    form = OutputFormat(container=Container.WAV, bit_depth=bit_depth)
    layout = {"channels": channels, "sample_rate": sample_rate, "frames": frames}
    encoder = open_encoder(path, form, tracks=[TrackInfo(name="", tags=tags)], **layout)
    try:
        yield lambda block: encoder.write(block[None])
        encoder.close()
    finally:
        encoder.abort()
    check_encoded(path, form, tracks=1, **layout)


def open_clip(clip: PlannedClip) -> AudioReader:
    """The file of a clip, to be read.

    Raises:
        InputError: It can't be read.
        RevithionError: ``daw.plan``: it is not what the plan says.
    """
    reader = AudioReader(Path(clip.file))
    info = reader.info
    shape = (info.channels, info.sample_rate)
    if shape != (clip.channels, clip.sample_rate) or info.frames < clip.start_frame + clip.frames:
        reader.close()
        raise changed_clip(clip)
    return reader


def content_digest(file: Path) -> str:
    """SHA-256 of an audio file.

    Raises:
        InputError: It can't be read, or is no audio.
    """
    read_info(file)  # an error here says more than one of the digest
    return sha256_file(file)


def changed_clip(clip: PlannedClip) -> RevithionError:
    """The error that the file of a clip is another one than was planned."""
    return bridge_error(
        "daw.plan",
        f"{clip.file} is not {clip.channels} channels of {clip.file_frames} frames at {clip.sample_rate} Hz any more",
    )


class EvenReader:
    """A file's audio in pieces of the wanted lengths, with silence after its end.

    Args:
        reader: Of the file.
        start_frame: Where the first piece begins.
    """

    def __init__(self, reader: AudioReader, start_frame: int = 0) -> None:
        self._blocks = _blocks_from(reader, start_frame)
        self._held: Float32 = np.zeros((reader.info.channels, 0), np.float32)

    def take(self, count: int) -> Float32:
        """The next ``count`` frames, ``[channels, count]``.

        Raises:
            InputError: The file can't be read.
        """
        pieces, held = [self._held], self._held.shape[1]
        while held < count:
            block = next(self._blocks, None)
            if block is None:
                block = np.zeros((len(self._held), count - held), np.float32)
            pieces.append(block)
            held += block.shape[1]
        whole = np.concatenate(pieces, axis=1)
        self._held = whole[:, count:]
        return whole[:, :count]


def _blocks_from(reader: AudioReader, start: int) -> Iterator[Float32]:
    """Blocks from frame ``start`` on, none of them empty."""
    for block in reader.blocks():
        if block.shape[1] > start:
            yield block[:, start:]
        start = max(0, start - block.shape[1])


def _bit_depth(info: AudioInfo) -> BitDepth:
    if info.exact_bits is None:
        return BitDepth.FLOAT32
    return BitDepth.INT16 if info.exact_bits <= 16 else BitDepth.INT24
