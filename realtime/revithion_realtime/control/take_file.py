"""A WAV file that grows while it is recorded, and is whole at any time.

32-bit float samples with BWF's time reference. The header keeps room for the 64-bit sizes of RF64, so that a take may
become longer than 4 GiB without being written again: until then the room is a chunk that readers pass over.

Source: EBU Tech 3285 (BWF), EBU Tech 3306 (RF64: a file changes from WAVE to RF64 "on the fly").
"""

from __future__ import annotations

import os
import struct
from datetime import datetime
from pathlib import Path
from typing import IO

from revithion_stems.audio import Float32

_CHANNELS = 2
_FRAME_BYTES = 4 * _CHANNELS
_FLOAT = 3  # WAVE_FORMAT_IEEE_FLOAT
_DS64 = struct.Struct("<4sIQQQI")  # also the room that is kept for it
_BEXT = struct.Struct("<256s32s32s10s8sIIH64s5h180s")
_FMT = struct.Struct("<HHIIHHH")
_FACT = struct.Struct("<I")
_SAMPLES_AT = 12 + _DS64.size + (8 + _BEXT.size) + (8 + _FMT.size) + (8 + _FACT.size) + 8
_IN_DS64 = 2**32 - 1
"""Instead of a size that needs 64 bits."""


class TakeFile:
    """A stereo file being recorded, under a hidden name until :meth:`finish`. One thread at a time.

    Args:
        path: What it becomes.
        sample_rate: Hz.
        time_reference: Frames from midnight, or from the beginning of the project, to frame 0.
        started: When frame 0 was, local time.

    Raises:
        OSError: It can't be made; from the methods: it can't be written.
    """

    def __init__(self, path: Path, *, sample_rate: int, time_reference: int, started: datetime) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.part")
        self._sample_rate = sample_rate
        self._time_reference = time_reference
        self._started = started
        self._file: IO[bytes] = self._part.open("xb", buffering=0)
        try:
            self._write(self._header(0))
        except BaseException:
            self.close(keep=False)
            raise

    def write(self, samples: Float32) -> None:
        """Appends float32 ``[2, frames]``."""
        self._write(samples.T.astype("<f4", order="C").tobytes())

    def checkpoint(self, frames: int) -> None:
        """Makes the header say that there are so many frames, should this process be killed."""
        self._file.seek(0)
        self._write(self._header(frames))
        self._file.seek(0, os.SEEK_END)

    def finish(self, frames: int) -> Path:
        """Ends the file after so many frames, and gives it its name; works on a full disk."""
        with self._file:
            self._file.truncate(_SAMPLES_AT + frames * _FRAME_BYTES)
            self.checkpoint(frames)
            # Some file systems tell only now that there was no room for what they had taken.
            os.fsync(self._file.fileno())
        return self._part.replace(self.path)

    def close(self, *, keep: bool) -> None:
        """Closes it unfinished, if it is not closed; ``keep`` leaves it under its hidden name."""
        self._file.close()
        if not keep:
            self._part.unlink(missing_ok=True)

    def _write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _header(self, frames: int) -> bytes:
        data = frames * _FRAME_BYTES
        riff = _SAMPLES_AT - 8 + data
        large = riff >= _IN_DS64
        room = _DS64.size - 8
        first = _DS64.pack(b"ds64", room, riff, data, frames, 0) if large else _DS64.pack(b"JUNK", room, 0, 0, 0, 0)
        fmt = _FMT.pack(_FLOAT, _CHANNELS, self._sample_rate, self._sample_rate * _FRAME_BYTES, _FRAME_BYTES, 8 * 4, 0)
        return b"".join(
            (
                struct.pack("<4sI4s", b"RF64" if large else b"RIFF", _IN_DS64 if large else riff, b"WAVE"),
                first,
                _chunk(b"bext", self._broadcast_extension()),
                _chunk(b"fmt ", fmt),
                _chunk(b"fact", _FACT.pack(min(frames, _IN_DS64))),
                struct.pack("<4sI", b"data", _IN_DS64 if large else data),
            )
        )

    def _broadcast_extension(self) -> bytes:
        high, low = divmod(self._time_reference, 2**32)
        date, time = self._started.strftime("%Y-%m-%d").encode(), self._started.strftime("%H:%M:%S").encode()
        return _BEXT.pack(b"", b"revithion-stems", b"", date, time, low, high, 1, b"", 0, 0, 0, 0, 0, b"")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", name, len(body)) + body
