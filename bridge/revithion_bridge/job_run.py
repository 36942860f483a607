"""A running job: what its worker says becomes states, events, another attempt, or the end."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from revithion_bridge.errors import bridge_error, cancelled_error
from revithion_bridge.lanes import Lane
from revithion_bridge.live_jobs import LiveJob
from revithion_bridge.messages import Spans
from revithion_bridge.worker_link import WorkerGone
from revithion_bridge.worker_messages import Deferred, Finished, FromWorker, JobEventLine
from revithion_stems.errors import Cancelled, RevithionError, error_from_dict
from revithion_stems.events import (
    JobChanged,
    JobEvent,
    JobProgress,
    JobSummary,
    StemReady,
    event_as_dict,
    event_from_dict,
)
from revithion_stems.jobs import JobState
from revithion_stems.units import format_bytes

if TYPE_CHECKING:
    from revithion_bridge.job_queue import JobQueue

_LOG = logging.getLogger(__name__)
MOST_LOSSES = 1
"""So many times a worker may be lost during a job; then the job is at fault."""
MEMORY_WAIT_S = 5.0


class JobRun:
    """Takes what workers say, on the daemon's loop.

    Args:
        queue: Whose jobs they are.
    """

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._live = queue.live

    def tell_queued(self, job: LiveJob) -> None:
        """Says that a job is in the queue."""
        info = job.info
        self._live.emit(job, JobChanged(job_id=info.id, seq=0, state=info.state, source=info.parameters.source))

    def on_message(self, lane: Lane, message: FromWorker | WorkerGone) -> None:
        """Takes one message of a lane's worker. A message that makes no sense costs the worker, not the daemon."""
        try:
            match message:
                case JobEventLine():
                    job = self._live.get(message.job_id)
                    if job is not None and lane.job_id == message.job_id:
                        self._on_event(lane, job, event_from_dict(message.event))
                case Deferred():
                    self._on_deferred(lane, message)
                case Finished():
                    lane.model, lane.memory_bytes = message.model, message.memory_bytes
                    self._on_finished(lane, message)
                case WorkerGone():
                    self._on_gone(lane, message)
                case _:
                    raise ValueError(f"unexpected {type(message).__name__}")
        except (RevithionError, ValueError, msgspec.ValidationError):
            _LOG.exception("a worker's message makes no sense", extra={"job": lane.job_id})
            lane.kill()

    def give_back(self, lane: Lane, reason: str) -> None:
        """Puts the job of a lane whose worker is no more back into the queue, if it has not ended."""
        job_id = lane.free()
        job = self._live.get(job_id) if job_id is not None else None
        if job is not None and not job.info.state.is_final:
            self._requeue(job, reason)

    def _on_event(self, lane: Lane, job: LiveJob, event: JobEvent) -> None:
        match event:
            case JobChanged(state=JobState.QUEUED | JobState.FAILED | JobState.CANCELLED):
                return  # what becomes of it is decided here, when the worker is through with it
            case JobChanged(state=state):
                if state is JobState.SEPARATING:
                    job.memory_since = None
                    job.note(refreshed=True)
                if state is JobState.DONE:
                    self._queue.counters["done"] += 1
                    self._queue.drop_spans(job)
                self._live.enter(job, state)
                return
            case JobProgress():
                if event.done and not job.segments_seen:
                    job.segments_seen = True
                    self._queue.first_segment.add(time.monotonic() - job.started)
                job.update(done=event.done, total=event.total, elapsed_s=event.elapsed_s, remaining_s=event.remaining_s)
            case StemReady(final=True):
                stems = () if not job.info.stems or event.stem in _names(job) else job.info.stems
                job.update(stems=(*stems, event_as_dict(event)))
            case StemReady():
                self._note_span(job, event)
            case JobSummary():
                self._queue.audio_s += event.duration_s
                self._queue.counters["cache_hits" if event.cached else "cache_misses"] += 1
                summary = event_as_dict(event)
                if event.exact:
                    summary["null_db"] = None  # minus infinity, which JSON does not have
                job.update(summary=summary)
            case _:
                pass
        self._live.emit(job, event)

    def _note_span(self, job: LiveJob, event: StemReady) -> None:
        spans = job.info.spans
        if spans is None or event.start_frame == 0:
            names = (*(spans.stems if spans is not None else ()), event.stem)
            first = Spans(
                folder=str(self._queue.span_folder(job)),
                stems=tuple(dict.fromkeys(names)),
                span_frames=event.frames,
                sample_rate=event.sample_rate,
                count=1,
            )
            job.update(spans=first)
        else:
            job.update(spans=msgspec.structs.replace(spans, count=event.start_frame // spans.span_frames + 1))

    def _on_deferred(self, lane: Lane, message: Deferred) -> None:
        lane.free()
        job = self._live.get(message.job_id)
        if job is not None:
            job.update(attempts=job.info.attempts - 1)
            if job.stop == "cancel":
                self._end(job, cancelled_error())
            else:
                if job.memory_since is None:
                    job.memory_since = time.monotonic()
                    self._live.notice(
                        job,
                        "job.waiting_memory",
                        f"waiting for memory: {format_bytes(message.needed_bytes)} more are needed, "
                        f"{format_bytes(message.free_bytes)} are free",
                    )
                self._queue.enqueue(job, delay_s=MEMORY_WAIT_S)
        self._queue.dispatch()

    def _on_finished(self, lane: Lane, message: Finished) -> None:
        lane.free()
        job = self._live.get(message.job_id)
        if job is not None and not job.info.state.is_final:
            error = message.error
            if error is None:
                raise ValueError("a job that is finished is neither done nor failed")
            wrapped = error_from_dict({"code": error.code, "message": error.message, "hint": error.hint})
            if error.code == Cancelled.default_code and job.stop in ("preempt", "shutdown"):
                if job.stop == "preempt":
                    self._queue.counters["preempted"] += 1
                    job.note(preemptions=job.stored.preemptions + 1)
                self._requeue(job, "preempted" if job.stop == "preempt" else "restart")
            elif error.code == "engine.memory" and job.stored.segment_s is None and message.segment_s and not job.stop:
                self._shrink(job, message.segment_s / 2)
            else:
                self._end(job, wrapped)
        self._queue.dispatch()

    def _shrink(self, job: LiveJob, segment_s: float) -> None:
        job.note(segment_s=segment_s)
        self._queue.counters["smaller_segment"] += 1
        self._live.notice(
            job, "engine.smaller_segment", f"memory ran out: once more with segments of {segment_s:.2f} s"
        )
        self._requeue(job, "memory")

    def _on_gone(self, lane: Lane, message: WorkerGone) -> None:
        job_id = lane.free()
        self._queue.counters["workers_lost"] += 1
        _LOG.error("worker ended with status %s: %s", message.status, " | ".join(message.last_lines[-3:]))
        job = self._live.get(job_id) if job_id is not None else None
        if job is not None and not job.info.state.is_final:
            if job.stop == "cancel":
                self._end(job, cancelled_error())
            elif job.stored.losses >= MOST_LOSSES:
                why = f"status {message.status}" + (", as when memory ran out" if message.status == -9 else "")
                self._end(job, bridge_error("worker.lost", f"the process that computes ended ({why})"))
            else:
                job.note(losses=job.stored.losses + 1)
                self._live.notice(job, "job.worker_lost", "the process that computes ended: once more from there")
                self._requeue(job, "worker lost")
        if not self._queue.stopping:
            self._queue.dispatch()

    def _requeue(self, job: LiveJob, reason: str) -> None:
        job.stop = ""
        if job.info.state is not JobState.QUEUED:
            self._live.enter(job, JobState.QUEUED, reason=reason)
        else:
            self._live.write(job)
        if not self._queue.stopping:
            self._queue.enqueue(job, front=True)

    def _end(self, job: LiveJob, error: RevithionError) -> None:
        cancelled = isinstance(error, Cancelled)
        self._queue.counters["cancelled" if cancelled else "failed"] += 1
        self._queue.drop_spans(job)
        self._live.enter(job, JobState.CANCELLED if cancelled else JobState.FAILED, error=error)


def _names(job: LiveJob) -> set[str]:
    return {stem["stem"] for stem in job.info.stems}
