"""The outputs of network runs on disk, in order, so that a job that was killed does not compute them again.

A resumed job decodes, overlaps and adds all over again, which is cheap and gives the same bytes, and takes from here
what the network gave. A record holds the CRC-32 of the segment that went in and of the one that came out: the first
record that was cut short, or whose input differs, ends what can be recalled, and the journal goes on from there.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from revithion_stems.audio import Float32

_HEADER = struct.Struct("<4sIIIII")  # magic, CRC of the input, CRC of the output, shape of the output
_MAGIC = b"SEG1"


class SegmentJournal:
    """A journal file, open for one job. One thread at a time.

    Args:
        path: Made if it does not exist.

    Raises:
        OSError: It can't be opened; from the methods: it can't be read or written (a full disk).
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file: IO[bytes] = path.open("rb+", buffering=0)
        self._size = path.stat().st_size
        self._at = 0  # the end of the last good record
        self._recalling = True
        self.recalled = 0

    def recall(self, mix: Float32) -> Float32 | None:
        """The next recorded output, if there is one and it was computed from ``mix`` ``[2, frames]``."""
        if not self._recalling:
            return None
        header = self._file.read(_HEADER.size)
        if len(header) == _HEADER.size:
            magic, crc_in, crc_out, *shape = _HEADER.unpack(header)
            size = 4 * math.prod(shape)
            if magic == _MAGIC and crc_in == _crc(mix) and size <= self._size - self._at:
                data = self._file.read(size)
                if len(data) == size and zlib.crc32(data) == crc_out:
                    self._at += _HEADER.size + size
                    self.recalled += 1
                    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)
        self._recalling = False
        return None

    def append(self, mix: Float32, stems: Float32) -> None:
        """Records the output ``[stems, 2, frames]`` that was computed from ``mix``; not before recalling has ended."""
        self._recalling = False
        data = np.ascontiguousarray(stems).astype("<f4", copy=False).data.cast("B")
        header = _HEADER.pack(_MAGIC, _crc(mix), zlib.crc32(data), *stems.shape)
        self._file.seek(self._at)
        for part in (memoryview(header), data):
            while part:
                part = part[self._file.write(part) :]
        self._at += len(header) + data.nbytes
        self._file.truncate(self._at)

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self._file.close()


def _crc(mix: Float32) -> int:
    return zlib.crc32(np.ascontiguousarray(mix).astype("<f4", copy=False).data.cast("B"))
