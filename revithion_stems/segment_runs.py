"""The network runs of one job: counted, recorded, recalled from an earlier attempt, and cancelled between two."""

from __future__ import annotations

import time
from collections.abc import Callable

from revithion_stems.audio import Float32
from revithion_stems.engines import Separator
from revithion_stems.events import CancelToken, EventStream, JobProgress
from revithion_stems.journal import SegmentJournal


class SegmentRuns:
    """A :data:`~revithion_stems.separator.SegmentRunner` with a memory. One thread at a time.

    Args:
        events: Gets the progress.
        cancel: Looked at before each run.
        journal: Of this job, or None if nothing can be recorded.
        drop_journal: Called if it can't be written any more, to free the room that it takes.

    Attributes:
        recalled: How many runs the journal had.
    """

    def __init__(
        self,
        events: EventStream,
        cancel: CancelToken,
        journal: SegmentJournal | None,
        drop_journal: Callable[[], None],
    ) -> None:
        self._events = events
        self._cancel = cancel
        self._journal = journal
        self._drop_journal = drop_journal
        self._started = self._first_new = time.monotonic()
        self._done = self._total = 0
        self.recalled = 0

    def expect(self, total: int) -> None:
        """Tells how many runs there will be; the clock of the rate starts."""
        self._total = total
        self._first_new = time.monotonic()

    def run(self, separator: Separator, mix: Float32, columns: list[int]) -> Float32:
        """Stems ``[columns, 2, frames]`` of a segment ``[2, frames]``, computed or recalled."""
        self._cancel.raise_if_cancelled()
        self._progress()
        recorded = self._journal.recall(mix) if self._journal is not None else None
        if recorded is not None and separator.settled:
            self.recalled += 1
            self._done += 1
            return recorded
        if self._done == self.recalled:  # the first run that is new
            self._first_new = time.monotonic()
            if self.recalled:
                self._events.notice("job.resumed", f"going on after {self.recalled} network runs that were done before")
        self._done += 1
        stems = separator.separate_segment(mix)[columns]
        if self._journal is not None and recorded is None:
            self._record(self._journal, mix, stems)
        return stems

    def finish(self) -> float:
        """Reports the last progress; returns the mean time of a run in seconds, 0 if none was needed."""
        self._total = self._done  # the number of runs was right but for rounding at the end
        self._progress()
        new = self._done - self.recalled
        return (time.monotonic() - self._first_new) / new if new else 0.0

    def _record(self, journal: SegmentJournal, mix: Float32, stems: Float32) -> None:
        try:
            journal.append(mix, stems)
        except OSError as exc:
            journal.close()
            self._journal = None
            self._drop_journal()
            self._events.notice(
                "job.not_resumable",
                f"the journal can't be written ({exc.strerror or exc}): if this job is interrupted, it starts over",
            )

    def _progress(self) -> None:
        done = min(self._done, self._total)
        new = done - self.recalled
        now = time.monotonic()
        self._events.emit(
            JobProgress,
            done=done,
            total=self._total,
            elapsed_s=now - self._started,
            remaining_s=(now - self._first_new) / new * (self._total - done) if new > 0 else None,
        )
