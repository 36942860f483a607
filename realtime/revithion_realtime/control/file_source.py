"""A file played as if it were live: decoded, brought to the device's rate, kept a little ahead of what is played."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soxr

from revithion_realtime.memory.frame_ring import FrameRing
from revithion_stems.audio import Float32
from revithion_stems.audio_files import AudioReader
from revithion_stems.errors import LiveError, RevithionError, unexpected_error

AHEAD_S = 2.0
"""So far ahead of what is played the ring is filled, if it is large enough."""

_BLOCK_FRAMES = 16_384
_POLL_S = 0.05


class FileSource:
    """Fills the ``source`` ring from a thread of its own; after the file's end, with silence.

    Mono goes to both channels. Of more than two channels the first two are played: front left and right in all formats.
    Another rate than the device's is converted by soxr. A loop has no gap, not even in the rate conversion. Memory does
    not grow with the file. Methods on one thread.

    Args:
        path: The file; its beginning is decoded here and now, and waits in the ring when this returns.
        sample_rate: The device's, Hz.
        ring: float32 ``[2, capacity]``; only this writes to it. Frame 0 of the file becomes its frame ``end``.
        position: How many frames of the ring the audio process has consumed.
        loop: Whether the file begins again at its end, for ever.

    Raises:
        InputError: The file can't be read.
        LiveError: ``live.source``: it can't be converted to that rate.
    """

    def __init__(
        self, path: Path, *, sample_rate: int, ring: FrameRing, position: Callable[[], int], loop: bool = False
    ) -> None:
        self._ring = ring
        self._position = position
        self._ahead = min(round(AHEAD_S * sample_rate), ring.capacity // 2)
        self._silence = np.zeros((ring.channels, ring.capacity // 8), np.float32)
        self._error: RevithionError | None = None
        self._ended: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="file source", daemon=True)
        self._reader = AudioReader(path)
        try:
            self._blocks = self._decode(sample_rate, loop=loop)
            self._fill()
            if self._error is not None:
                raise self._error
        except BaseException:
            self._reader.close()
            raise

    @property
    def ended(self) -> int | None:
        """The ring's frame from which on there is only silence; None while there is more, and in a loop."""
        return self._ended

    @property
    def error(self) -> RevithionError | None:
        """Why the file ended early, if it did: it is damaged further on, was taken away, or a bug was met."""
        return self._error

    def start(self) -> None:
        """Begins to follow :attr:`position`."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and closes the file; again, it does nothing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        try:
            while not self._stop.wait(_POLL_S):
                self._fill()
        except Exception as exc:  # noqa: BLE001 - a thread that ends unseen is a song that just falls silent
            self._error = unexpected_error(exc)

    def _fill(self) -> None:
        """Writes until the ring is far enough ahead."""
        while self._ring.end < self._position() + self._ahead and not self._stop.is_set():
            if self._ended is None:
                try:
                    block = next(self._blocks, None)
                except RevithionError as exc:
                    self._error, block = exc, None
                if block is not None:
                    self._ring.write(block)
                    continue
                self._ended = self._ring.end
            # Silence too is kept ahead: the device's last block goes beyond the end.
            self._ring.write(self._silence)

    def _decode(self, sample_rate: int, *, loop: bool) -> Iterator[Float32]:
        """The file at the device's rate, in blocks ``[2, frames]`` that the ring takes; without end in a loop."""
        size = self._ring.capacity // 8  # no block of a ring may be longer
        for block in self._converted(sample_rate, loop=loop):
            for at in range(0, block.shape[1], size):
                yield block[:, at : at + size]

    def _converted(self, sample_rate: int, *, loop: bool) -> Iterator[Float32]:
        rate = self._reader.info.sample_rate
        if rate == sample_rate:
            yield from self._passes(loop=loop)
            return
        try:
            stream = soxr.ResampleStream(rate, sample_rate, 2, dtype="float32", quality="HQ")
        except (RuntimeError, ValueError) as exc:
            raise LiveError(
                f"{self._reader.path} can't be brought from {rate} Hz to {sample_rate} Hz: {exc}",
                hint="Convert the file to 44100 or 48000 Hz first.",
                code="live.source",
            ) from exc
        for block in self._passes(loop=loop):
            yield _planar(stream.resample_chunk(np.ascontiguousarray(block.T)))
        yield _planar(stream.resample_chunk(np.zeros((0, 2), np.float32), last=True))

    def _passes(self, *, loop: bool) -> Iterator[Float32]:
        """The file as stereo, once or for ever."""
        while True:
            for block in self._reader.blocks(_BLOCK_FRAMES):
                yield np.repeat(block, 2, axis=0) if block.shape[0] == 1 else block[:2]
            if not loop:
                return


def _planar(interleaved: Float32) -> Float32:
    return np.ascontiguousarray(interleaved.T, dtype=np.float32)
