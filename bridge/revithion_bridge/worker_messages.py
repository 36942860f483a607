"""What the daemon and the process that computes say to each other: one JSON object a line, on stdin and stdout."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from revithion_bridge.messages import ErrorInfo, JobParameters


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True):
    pass


class Run(_Line, frozen=True, kw_only=True):
    """To the worker: do this job; it does one at a time.

    Attributes:
        job_id: Of the job.
        parameters: What to do.
        segment_s: Instead of what the parameters say, after memory ran out; or None.
        spans: Folder for spans, made by the worker; None for no spans.
        waited: Whether it has waited for memory long enough: then it is tried.
    """

    job_id: str
    parameters: JobParameters
    segment_s: float | None = None
    spans: str | None = None
    waited: bool = False


class Stop(_Line, frozen=True, kw_only=True):
    """To the worker: end the job before its next network run; what was done stays in the journal."""

    job_id: str


class Ready(_Line, frozen=True, kw_only=True):
    """From the worker, once: it can take jobs. ``device`` is what ``auto`` means here."""

    pid: int
    device: str


class JobEventLine(_Line, frozen=True, kw_only=True):
    """From the worker: an event of the job, as :func:`revithion_stems.events.event_as_dict` gives it."""

    job_id: str
    event: dict[str, Any]


class Deferred(_Line, frozen=True, kw_only=True):
    """From the worker: the job was not started, because memory that it needs is in use by others at the moment.

    Attributes:
        job_id: Of the job.
        needed_bytes: What it needs beyond what the worker has.
        free_bytes: What there is.
    """

    job_id: str
    needed_bytes: int
    free_bytes: int


class Finished(_Line, frozen=True, kw_only=True):
    """From the worker: the job is over.

    Attributes:
        job_id: Of the job.
        error: Why it failed, or None.
        segment_s: Segment that it ran with, in seconds, once that is known.
        model: What is warm now, or None.
        memory_bytes: Resident memory of the worker.
    """

    job_id: str
    error: ErrorInfo | None = None
    segment_s: float | None = None
    model: str | None = None
    memory_bytes: int = 0


ToWorker: TypeAlias = Run | Stop
FromWorker: TypeAlias = Ready | JobEventLine | Deferred | Finished
