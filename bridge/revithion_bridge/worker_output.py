"""What a worker says: whole lines on stdout, and the events of its job with one count."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from pathlib import Path
from typing import BinaryIO

import msgspec

from revithion_bridge.worker_messages import FromWorker, JobEventLine
from revithion_stems.events import JobEvent, Notice, StemReady, event_as_dict


class LineWriter:
    """Writes messages as whole lines, from any thread. The process ends if nobody reads them any more.

    Args:
        file: Open for writing, in binary.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()  # infinity and NaN, which JSON lacks, become null
        self._lock = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Writes one line."""
        line = self._encoder.encode(message) + b"\n"
        with self._lock:
            try:
                self._file.write(line)
                self._file.flush()
            except OSError:
                os._exit(1)


class JobEvents:
    """Sends the events of one job: those of the core, and the spans between them, with one count. Any thread.

    Args:
        job_id: Of the job.
        writer: Where they go.
    """

    def __init__(self, job_id: str, writer: LineWriter) -> None:
        self._job_id = job_id
        self._writer = writer
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def tell(self, event: JobEvent) -> None:
        """Sends an event under the next number."""
        with self._lock:
            data = event_as_dict(dataclasses.replace(event, seq=next(self._numbers)))
            self._writer.send(JobEventLine(job_id=self._job_id, event=data))

    def span(self, stem: str, path: Path, start_frame: int, frames: int, sample_rate: int) -> None:
        """Tells that a span of a stem is there."""
        self.tell(
            StemReady(
                job_id=self._job_id,
                seq=0,
                stem=stem,
                path=str(path),
                frames=frames,
                sample_rate=sample_rate,
                sha256="",
                stream=0,
                start_frame=start_frame,
                final=False,
            )
        )

    def spans_lost(self, reason: str) -> None:
        """Tells that no more spans come."""
        self.tell(Notice(job_id=self._job_id, seq=0, code="spans.lost", message=f"going on without spans: {reason}"))
