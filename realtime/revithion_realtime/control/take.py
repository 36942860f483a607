"""One take of a live session: the ring of played stems followed, and written to a file for each stem."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Generator
from datetime import datetime
from pathlib import Path

import numpy as np

from revithion_realtime.control.take_file import TakeFile
from revithion_realtime.memory.frame_ring import FrameRing
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError, unexpected_error
from revithion_stems.paths import safe_component

_BLOCK_FRAMES = 8_192
_POLL_S = 0.05
_CHECKPOINT_S = 5.0
_DISK_TIMEOUT_S = 30.0


class Take:
    """A take: its thread writes the files, and nobody else. Methods on one other thread.

    Args:
        ring: Where the stems come from: ``[2·stems, capacity]``.
        stems: Their names.
        folder: Below which the take's folder is made.
        start: First frame of the ring that belongs to it.
        sample_rate: Hz.
        time_reference: For BWF: frames to the first one.
        started: When the first frame was, local time.

    Attributes:
        folder: Of the take.
        error: ``live.recording``: why it ended before it was stopped, or could not be finished; or None.
        lost_frames: That were gone before they could be read.

    Raises:
        LiveError: ``live.recording``: the folder can't be written.
    """

    def __init__(
        self,
        ring: FrameRing,
        stems: tuple[str, ...],
        *,
        folder: Path,
        start: int,
        sample_rate: int,
        time_reference: int,
        started: datetime,
    ) -> None:
        self.error: LiveError | None = None
        self.lost_frames = 0
        self._ring = ring
        self._at = start
        self._until: int | None = None
        self._frames = 0
        self._checkpoint_frames = round(_CHECKPOINT_S * sample_rate)
        self._stop = threading.Event()
        self._done: tuple[Path, ...] = ()
        self._files: list[TakeFile] = []
        with _recording_errors(folder):
            self.folder = _new_folder(folder, started)
            try:
                for stem in stems:
                    path = self.folder / f"{safe_component(stem)}.wav"
                    self._files.append(
                        TakeFile(path, sample_rate=sample_rate, time_reference=time_reference, started=started)
                    )
            except BaseException:
                self._close()
                raise
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether nothing is recorded any more."""
        return not self._thread.is_alive()

    def end(self) -> tuple[Path, ...]:
        """Ends it with what is played now, unless it has ended; returns its files, none if it has no frames.

        Raises:
            LiveError: ``live.recording``: they could not be finished.
        """
        self._until = self._ring.end
        self._stop.set()
        self._thread.join(_DISK_TIMEOUT_S)
        if self._thread.is_alive():
            raise recording_error(
                f"the disk of {self.folder} has not answered for {_DISK_TIMEOUT_S:g} s",
                hint="The take is finished when it does, unless this program ends before.",
            )
        if self.error is not None and not self._done and self._frames:
            raise self.error
        return self._done

    def _run(self) -> None:
        try:
            with _recording_errors(self.folder):
                self._follow()
        except LiveError as exc:
            self.error = exc
        except Exception as exc:  # noqa: BLE001 - else the take would end unseen, and its files stay hidden
            bug = unexpected_error(exc)
            self.error = recording_error(f"the take in {self.folder} ended: {bug.message}", hint=bug.hint)
        try:
            with _recording_errors(self.folder):
                if self._frames:
                    self._done = tuple(file.finish(self._frames) for file in self._files)
        except LiveError as exc:
            self.error = self.error or exc
        self._close()

    def _follow(self) -> None:
        ring = self._ring
        size = min(_BLOCK_FRAMES, ring.capacity // 8)
        block = np.zeros((ring.channels, size), np.float32)
        silence = np.zeros_like(block)
        checkpoint, seen = self._checkpoint_frames, ring.end
        while True:
            stopping = self._stop.is_set()
            end = ring.end
            if stopping:
                end = min(end, end if self._until is None else self._until)
            elif end < seen:
                self._at = end  # the writer has begun anew
            seen = end
            while self._at < end:
                part = block[:, : min(size, end - self._at)]
                if ring.read(self._at, part):
                    self._append(part)
                else:
                    # Half a ring ahead of what is lost, so that it does not happen again at once.
                    there = min(end, max(ring.begin, ring.end - ring.capacity // 2, self._at + 1))
                    missing = there - self._at
                    self.lost_frames += missing
                    for at in range(0, missing, size):
                        self._append(silence[:, : min(size, missing - at)])
            if self._frames >= checkpoint:
                checkpoint = self._frames + self._checkpoint_frames
                for file in self._files:
                    file.checkpoint(self._frames)
            if stopping:
                return
            self._stop.wait(_POLL_S)

    def _append(self, block: Float32) -> None:
        for number, file in enumerate(self._files):
            file.write(block[2 * number : 2 * number + 2])
        # Only what all files have counts: a disk that fills up does so in the middle of a block.
        self._at += block.shape[1]
        self._frames += block.shape[1]

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            for file in self._files:
                file.close(keep=self._frames > 0)
            if not self._frames:
                self.folder.rmdir()


def _new_folder(folder: Path, started: datetime) -> Path:
    base = f"take-{started:%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 100):
        take = folder / (base if number == 1 else f"{base}-{number}")
        with contextlib.suppress(FileExistsError):
            take.mkdir()
            return take
    raise FileExistsError(f"{base} to {base}-99 are there already")


@contextlib.contextmanager
def _recording_errors(folder: Path) -> Generator[None]:
    """What the system refuses, as ours."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "no space is left on the disk" if full else exc.strerror or str(exc)
        raise recording_error(
            f"can't record to {folder}: {reason}",
            hint="Make room or choose another folder; what was recorded before is kept.",
        ) from exc


def recording_error(message: str, *, hint: str) -> LiveError:
    """A ``live.recording``."""
    return LiveError(message, hint=hint, code="live.recording")
