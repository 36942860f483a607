"""A daemon's job told as if it ran here: own numbers, own spelling of paths, no state twice, no spans."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any

import msgspec

from revithion_stems.errors import Cancelled, RevithionError, error_from_dict
from revithion_stems.events import CancelToken, EventStream, JobChanged, JobEvent, JobSummary, Notice, StemReady
from revithion_stems.file_set import FileSet
from revithion_stems.jobs import JobState
from revithion_stems.manifest import decode_manifest
from revithion_stems.outputs import OutputOptions
from revithion_stems.reports import SeparationReport
from revithion_stems.requests import SeparationRequest
from revithion_stems.stem_files import WrittenStem


class EventReplay:
    """Takes events from elsewhere and emits its own. One thread at a time.

    Args:
        request: As the user made it: its source is spelt as he typed it.
        output: Likewise its folder.
        stream: Where events go; its job id is the job's.

    Attributes:
        stream: As given.
        state: The last state that was told.
    """

    def __init__(self, request: SeparationRequest, output: OutputOptions, stream: EventStream) -> None:
        self.stream = stream
        self.state = JobState.QUEUED
        self._source = request.source_name
        self._absolute = str(Path(self._source).absolute())
        self._folder = (str(output.folder.absolute()), str(output.folder))
        self._stems: list[StemReady] = []
        self._summary: JobSummary | None = None
        stream.emit(JobChanged, state=self.state, source=self._source)

    def take(self, event: JobEvent, cancel: CancelToken, *, raising: bool = True) -> None:
        """Emits the event, if it says something new.

        Args:
            event: Of the job.
            cancel: Tells whether it was the user who cancelled: then the words are ours.
            raising: Whether a job that failed or was cancelled raises its error.

        Raises:
            RevithionError: The job ended without a result.
        """
        match event:
            case JobChanged():
                self._changed(event, cancel, raising=raising)
            case StemReady(final=True):
                self._stems.append(event)  # told when the manifest is ready too
            case StemReady():
                pass
            case JobSummary():
                self._summary = event
                if event.manifest is not None:
                    self._name_source(Path(event.manifest))
                for stem in self._stems:
                    self._emit(stem)
                self._emit(event)
            case Notice(code=code, message=message):
                self.stream.notice(code, self._spelt(code, message))
            case _:
                self._emit(event)

    def report(self) -> SeparationReport:
        """What came of the job; after its last event."""
        assert self._summary is not None  # a job that is done has one
        return report_of(self._stems, self._summary)

    def _changed(self, event: JobChanged, cancel: CancelToken, *, raising: bool) -> None:
        order = list(JobState)  # a job that gave way, or whose worker was lost, goes through them again
        if self.state.is_final or order.index(event.state) <= order.index(self.state):
            return
        self.state = event.state
        error = self._error(event, cancel)
        self.stream.emit(
            JobChanged, state=event.state, source=self._source, error=None if error is None else error.as_dict()
        )
        if error is not None and raising:
            raise error

    def _error(self, event: JobChanged, cancel: CancelToken) -> RevithionError | None:
        if event.state is JobState.CANCELLED and cancel.cancelled:
            with contextlib.suppress(Cancelled):
                cancel.raise_if_cancelled()
        if event.error is None:
            return None
        code = event.error["code"]
        return error_from_dict({**event.error, "message": self._spelt(code, event.error["message"])})

    def _spelt(self, code: str, message: str) -> str:
        """Absolute paths as the user typed them, where this process would have had them like that."""
        if code == "output.outside":
            return _replaced(message, *self._folder)
        # Other paths of output are absolute in any case, and may be that of the source.
        return message if code.startswith("output.") else _replaced(message, self._absolute, self._source)

    def _emit(self, event: JobEvent) -> None:
        fields: dict[str, Any] = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
        del fields["job_id"], fields["seq"]
        self.stream.emit(type(event), **fields)

    def _name_source(self, path: Path) -> None:
        """Has the manifest name the source as the user did; one that can't be changed is right too."""
        if self._source == self._absolute:
            return
        with contextlib.suppress(OSError, ValueError, RevithionError), FileSet() as files:
            manifest = decode_manifest(path.read_bytes())
            if manifest.source.path == self._absolute:
                source = msgspec.structs.replace(manifest.source, path=self._source)
                files.add(path, msgspec.structs.replace(manifest, source=source).encode())
                files.publish()


def report_of(stems: list[StemReady], summary: JobSummary) -> SeparationReport:
    """The report that a job's last events describe; its ``run_s`` is 0, because who computed has noted that."""

    def size(path: Path) -> int:
        with contextlib.suppress(OSError):
            return path.stat().st_size
        return 0  # taken away already

    return SeparationReport(
        model=summary.model,
        engine=summary.engine,
        device=summary.device,
        licence=summary.licence,
        stems=tuple(
            WrittenStem(
                stem=stem.stem,
                path=Path(stem.path),
                size=size(Path(stem.path)),
                sha256=stem.sha256,
                stream=stem.stream,
            )
            for stem in stems
        ),
        duration_s=summary.duration_s,
        elapsed_s=summary.elapsed_s,
        run_s=0.0,
        null_db=summary.null_db,
        lag_frames=summary.lag_frames,
        gain_db=summary.gain_db,
        cached=summary.cached,
        resumed_runs=summary.resumed_runs,
        manifest=None if summary.manifest is None else Path(summary.manifest),
    )


def _replaced(text: str, path: str, spelling: str) -> str:
    """``text`` with ``path`` replaced where it stands whole: not as the beginning or the end of a longer one."""
    return re.sub(rf"(?<![\w/\\.-]){re.escape(path)}(?!\.?[\w/\\-])", lambda _: spelling, text)
