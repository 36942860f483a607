"""A file, or a piece of one, as WAV: for DAWs that can't or may not read it as it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from revithion_stems.audio_files import AudioInfo, AudioReader
from revithion_stems.encoders import TrackInfo, check_encoded, open_encoder
from revithion_stems.output_errors import output_errors
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.tags import read_tags


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
    with AudioReader(source) as reader:
        info = reader.info
        count = info.frames - start_frame if frames is None else frames
        form = OutputFormat(container=Container.WAV, bit_depth=_bit_depth(info))
        layout = {"channels": info.channels, "sample_rate": info.sample_rate, "frames": count}
        with output_errors(path):
            encoder = open_encoder(path, form, tracks=[TrackInfo(name="", tags=tags)], **layout)
            try:
                done = 0
                for block in reader.blocks():
                    piece = block[:, max(0, start_frame - done) : max(0, start_frame + count - done)]
                    if piece.shape[1]:
                        encoder.write(piece[None])
                    done += block.shape[1]
                encoder.close()
            finally:
                encoder.abort()
            check_encoded(path, form, tracks=1, **layout)


def _bit_depth(info: AudioInfo) -> BitDepth:
    if info.exact_bits is None:
        return BitDepth.FLOAT32
    return BitDepth.INT16 if info.exact_bits <= 16 else BitDepth.INT24
