"""A job's state, its events, and the words with which it ends."""

from __future__ import annotations

from revithion_stems.errors import Cancelled, RevithionError
from revithion_stems.events import EventStream, JobChanged, JobSummary, StemReady
from revithion_stems.jobs import Job, JobState
from revithion_stems.reports import SeparationReport
from revithion_stems.requests import SeparationRequest
from revithion_stems.source_facts import SourceFacts


class JobRecord:
    """Advances one job and tells about it.

    Args:
        request: What the job does.
        events: Where its events go; its id is the job's.
    """

    def __init__(self, request: SeparationRequest, events: EventStream) -> None:
        self._request = request
        self._events = events
        self._job = Job(id=events.job_id, source=request.source_name)
        events.emit(JobChanged, state=self._job.state, source=self._job.source)

    def enter(self, state: JobState, error: dict[str, str] | None = None) -> None:
        """Goes to the next state."""
        self._job = self._job.advance(state)
        self._events.emit(JobChanged, state=state, source=self._job.source, error=error)

    def fail(self, error: RevithionError) -> None:
        """Ends the job, unless it has ended."""
        if not self._job.state.is_final:
            state = JobState.CANCELLED if isinstance(error, Cancelled) else JobState.FAILED
            self.enter(state, error=error.as_dict())

    def note_source(self, facts: SourceFacts) -> None:
        """Says what people should know about the source."""
        if facts.shortfall is not None:
            self._events.notice("input.short", f"{self._request.source_name} {facts.shortfall}")
        if facts.marked_stem is not None:
            self._events.notice(
                "input.is_stem",
                f"{self._request.source_name} is already a stem ({facts.marked_stem}): "
                "separating it again multiplies artefacts",
            )

    def finish(self, report: SeparationReport, facts: SourceFacts) -> None:
        """Tells what came of it, and ends the job."""
        if report.gain_db:
            self._events.notice(
                "output.gain",
                f"a stem would clip: all stems are {-report.gain_db:.2f} dB lower (32-bit float WAV needs no gain)",
            )
        for stem in report.stems:
            self._events.emit(
                StemReady,
                stem=stem.stem,
                path=str(stem.path),
                frames=facts.scan.frames,
                sample_rate=facts.sample_rate,
                sha256=stem.sha256,
                stream=stem.stream,
            )
        self._events.emit(
            JobSummary,
            model=report.model,
            engine=report.engine,
            device=report.device,
            licence=report.licence,
            duration_s=report.duration_s,
            elapsed_s=report.elapsed_s,
            null_db=report.null_db,
            exact=report.exact,
            gain_db=report.gain_db,
            residual=self._request.residual.value,
            lag_frames=report.lag_frames,
            cached=report.cached,
            resumed_runs=report.resumed_runs,
            manifest=None if report.manifest is None else str(report.manifest),
        )
        self.enter(JobState.DONE)
