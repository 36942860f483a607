"""Reading with FFmpeg what libsndfile does not know: MP4/M4A, AAC, AC-3, WMA, Matroska, video with sound, and more.

Frame 0 is the first frame that was encoded wherever the container tells the encoder's delay: FFmpeg drops it by MP4
edit lists, iTunes' gapless tag, Opus pre-skip and Matroska's codec delay. The encoder's padding at the end of an MP4 is
dropped here, by the duration of the last packet or by iTunes' tag. Where nothing tells (raw AAC and AC-3, ASF, AVI),
it is FFmpeg's decode from the first packet on.

What can't be decoded is passed over, as players do, and :meth:`AvReader.shortfall` tells it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revithion_stems.audio import BLOCK_FRAMES, Float32, check_layout
from revithion_stems.audio_source import AudioInfo, cut_short
from revithion_stems.av_container import not_audio
from revithion_stems.av_stream import AvStream
from revithion_stems.errors import InputError

if TYPE_CHECKING:
    from av import AudioFrame

_DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}

_MOST_MISSING = 12_000
"""Frames that may lack without a word: headers round, and count what an encoder adds at both ends."""


class AvReader:
    """A file of which FFmpeg decodes the default or else the first audio stream. One thread at a time.

    Attributes:
        info: Rate and channels are those of the first decoded frame.
        strict: Never: how long a lossy stream is, a header tells roughly at best.

    Raises:
        InputError: Not media in a known format, no audio in it, nothing that can be decoded, too many channels.
        OSError: The file can't be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.strict = False
        self._stream = stream = AvStream(path)
        try:
            check_layout(stream.channels, 1, stream.sample_rate, origin=str(path))
            self._announced = self._frames(stream.announced_s)
            frames = self._announced or self._frames(stream.estimated_s)
            self.info = AudioInfo(
                channels=stream.channels,
                sample_rate=stream.sample_rate,
                frames=frames or 0,
                format=stream.format,
                subtype=stream.codec,
                exact_bits=None,
            )
            if frames is None:
                counted = sum(block.shape[1] for block in self.decode(BLOCK_FRAMES))
                self.info = dataclasses.replace(self.info, frames=counted)
                stream.close()
                self._stream = AvStream(path)
        except BaseException:
            stream.close()
            raise

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self._stream.close()

    def decode(self, block_frames: int) -> Iterator[Float32]:
        """The audio in blocks ``[channels, ≤ block_frames]``, all full but the last. Once only.

        Raises:
            InputError: Rate or channels change midway, or the index is damaged.
            OSError: The file can't be read.
        """
        parts: list[Float32] = []
        held = 0
        for samples in self._samples():
            while held + samples.shape[1] >= block_frames:
                parts.append(samples[:, : block_frames - held])
                samples = samples[:, block_frames - held :]
                yield np.concatenate(parts, axis=1)
                parts, held = [], 0
            parts.append(samples)
            held += samples.shape[1]
        if held:
            yield np.concatenate(parts, axis=1)

    def shortfall(self, frames: int) -> str | None:
        """What to tell people about a file that ended early or was damaged; None if it is whole."""
        if self._announced and self._announced - frames > _MOST_MISSING:
            return cut_short(frames, self._announced)
        if bad := self._stream.bad_packets:
            return f"is damaged: {bad} of its packets could not be decoded; the others were read"
        return None

    def _frames(self, seconds: float | None) -> int | None:
        """A length in frames, unless a file of this size can't be that long."""
        frames = round((seconds or 0.0) * self._stream.sample_rate)
        return frames if 0 < frames <= self._stream.most_frames else None

    def _samples(self) -> Iterator[Float32]:
        """Decoded frames as they come, without the encoder's padding at the end."""
        length = self._stream.gapless_frames()
        done = 0
        last: Float32 | None = None
        for frame in self._stream.frames():
            if last is not None:
                yield last
            last = self._convert(frame, done)[:, : None if length is None else max(0, length - done)]
            done += frame.samples
        if last is not None:
            yield last if length is not None else last[:, : self._stream.without_padding(last.shape[1])]

    def _convert(self, frame: AudioFrame, done: int) -> Float32:
        """A decoded frame as float32 ``[channels, frames]``; integers are scaled by a power of two."""
        channels = frame.layout.nb_channels
        if (channels, frame.sample_rate) != (self.info.channels, self.info.sample_rate):
            raise InputError(
                f"{self._path} changes after frame {done} from {self.info.channels} channels at "
                f"{self.info.sample_rate} Hz to {channels} channels at {frame.sample_rate} Hz",
                hint="Split the file there, or convert it to one format first, for example to WAV with ffmpeg.",
                code="input.changed_layout",
            )
        kind = frame.format.name.removesuffix("p")
        if kind not in _DTYPES:
            raise not_audio(self._path, f"its samples are of type {kind}")
        # PyAV's own to_ndarray reads past the end where eight channels are planar: it looks for a ninth.
        planes: list[Any] = list(frame.planes[: channels if frame.format.is_planar else 1])
        count = frame.samples * channels // len(planes)
        samples = np.stack([np.frombuffer(plane, _DTYPES[kind], count) for plane in planes])
        if not frame.format.is_planar:
            samples = samples.reshape(-1, channels).T
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, and is refused as such
            scaled = samples.astype(np.float32, order="C")
        match kind:
            case "u8":
                return (scaled - np.float32(128)) * np.float32(2**-7)
            case "s16" | "s32":
                return scaled * np.float32(2.0 ** (-15 if kind == "s16" else -31))
            case _:
                return scaled
