"""Records the stems of a live session to files, from the ring that the audio process leaves them in.

The audio process does not know that it is recorded: it writes the ring in any case and waits for nobody. A disk that is
too slow costs frames of the take, which are counted, and nothing that is heard.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from revithion_realtime.control.take import Take, recording_error
from revithion_realtime.memory.frame_ring import FrameRing
from revithion_stems.errors import LiveError

_DAY_S = 86_400


class Recorder:
    """Takes of a live session: a folder each, a stereo file of 32-bit float for each stem. Any thread.

    A take's files have equal length, and their sum is the delayed input. Their names are hidden until they are
    finished; what a killed process leaves behind under hidden names can be read all the same.

    Args:
        ring: The stems as they are played, before their faders: ``[2·stems, capacity]``, left and right of each.
        stems: Their names, in that order.
        sample_rate: Hz.
        latency_frames: How much later a frame is played than it came in: a take's time is that of the input.
    """

    def __init__(self, ring: FrameRing, stems: Sequence[str], *, sample_rate: int, latency_frames: int = 0) -> None:
        self._ring = ring
        self._stems = tuple(stems)
        self._sample_rate = sample_rate
        self._latency = latency_frames
        self._lock = threading.Lock()
        self._take: Take | None = None
        self._closed = False
        self._lost_before = 0
        self._error: LiveError | None = None

    @property
    def folder(self) -> Path | None:
        """Folder of the take that is being recorded; None when there is none, or when it ended with an error."""
        take = self._take
        return None if take is None or take.over else take.folder

    @property
    def error(self) -> LiveError | None:
        """``live.recording``: why the last take ended before it was stopped, or could not be finished; or None."""
        take = self._take
        return self._error if take is None else take.error

    @property
    def lost_frames(self) -> int:
        """Frames, in all takes so far, that were gone before they could be read; they are silent in the files."""
        take = self._take
        return self._lost_before + (0 if take is None else take.lost_frames)

    def start(self, folder: Path, *, start_frame: int | None = None, time_reference: int | None = None) -> Path:
        """Begins a take.

        Args:
            folder: Below which the take's own folder is made: ``take-20260131-235959``.
            start_frame: First frame of the ring that belongs to it; by default the next one that is played.
            time_reference: Frames from the beginning of the project to the take's first frame, where a transport is
                known; by default frames from midnight, local time.

        Returns:
            The take's folder.

        Raises:
            LiveError: ``live.recording``: there is a take already, or the folder can't be written. ``live.idle``: it is
                closed.
        """
        with self._lock:
            return self._start(folder, start_frame, time_reference)

    def stop(self) -> tuple[Path, ...]:
        """Ends the take with what is played now; of one that ended by itself, what it has.

        Returns:
            Its files, in the order of the stems; none if there was no take, or nothing was played in it.

        Raises:
            LiveError: ``live.recording``: the files could not be finished.
        """
        with self._lock:
            return self._stop()

    def close(self) -> tuple[Path, ...]:
        """Ends the take, as :meth:`stop` does, and begins no other.

        Raises:
            LiveError: ``live.recording``: the files could not be finished.
        """
        with self._lock:
            self._closed = True
            return self._stop()

    def _start(self, folder: Path, start_frame: int | None, time_reference: int | None) -> Path:
        if self._closed:
            raise LiveError("the session has ended", hint="Start another one.", code="live.idle")
        if self.folder is not None:
            raise recording_error(f"there is a take already: {self.folder}", hint="Stop it first.")
        with contextlib.suppress(LiveError):  # of an earlier take, as `error` has said
            self._stop()
        end = self._ring.end
        start = end if start_frame is None else start_frame
        # What is played at this moment came in so much earlier.
        heard = datetime.now().timestamp() - (end - start + self._latency) / self._sample_rate
        started = datetime.fromtimestamp(heard)
        if time_reference is None:
            midnight = started.replace(hour=0, minute=0, second=0, microsecond=0)
            time_reference = round((started - midnight).total_seconds() * self._sample_rate) % (
                _DAY_S * self._sample_rate
            )
        self._error = None
        self._take = Take(
            self._ring,
            self._stems,
            folder=folder,
            start=start,
            sample_rate=self._sample_rate,
            time_reference=time_reference,
            started=started,
        )
        return self._take.folder

    def _stop(self) -> tuple[Path, ...]:
        take = self._take
        if take is None:
            return ()
        try:
            return take.end()
        finally:
            self._error = take.error
            self._lost_before += take.lost_frames
            self._take = None
