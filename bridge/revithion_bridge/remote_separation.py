"""``separate`` through the daemon that runs: the same events, files and report as in this process, or this process.

The daemon is asked for what happened (``events.since``) instead of being subscribed to: so no event from the first one
on is missed, everything stays on one thread, and each answer is a sign of life.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from revithion_bridge.event_replay import EventReplay
from revithion_bridge.messages import CancelJob, GetEvents, GetJob, GetSnapshot, GetStatus, JobParameters, SubmitJob
from revithion_bridge.parameters import to_parameters
from revithion_stems.api import separate_to_files
from revithion_stems.errors import RevithionError
from revithion_stems.events import CancelToken, EventCallback, EventStream, JobChanged, JobEvent, event_from_dict
from revithion_stems.jobs import JobState
from revithion_stems.model_loading import ModelCache
from revithion_stems.outputs import OutputOptions
from revithion_stems.reports import SeparationReport
from revithion_stems.requests import SeparationRequest
from revithion_stems.scheduler import Priority
from revithion_stems.version import __version__
from revithion_stems.weights import ModelStore

if TYPE_CHECKING:
    from revithion_bridge.client import Client

CLIENT = "cli"
_FIRST_ANSWER_S = 0.5
_ANSWER_S = 2.0
_LOST_S = 10.0
"""Long enough for a service to be started again, which then goes on with the job."""
_POLL_S = 0.1
_TOLD_TO_WAIT_S = 3.0


class _Lost(Exception):
    """The daemon is gone, or knows nothing of the job any more."""


def open_door() -> RemoteSeparation | None:
    """The running daemon, if it would do the same as this process: same version, same folders, not paused."""
    from revithion_bridge.client import connect
    from revithion_bridge.connection import own_folders

    try:
        client = connect(client=CLIENT, timeout_s=_FIRST_ANSWER_S)
    except RevithionError:
        return None
    try:
        status = client.request(GetStatus(), timeout_s=_FIRST_ANSWER_S)
    except RevithionError:
        client.close()
        return None
    usable = not (status.paused or status.stopping)
    if usable and status.version == __version__ and status.folders == own_folders():
        return RemoteSeparation(client)
    client.close()
    return None


class RemoteSeparation:
    """Called like :func:`~revithion_stems.api.separate_to_files`, with the same outcome. One thread at a time.

    What the daemon refuses, or leaves undone because it is gone, is done in this process: store and journal are shared.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._numbers = itertools.count(1)
        self._lost = False

    def close(self) -> None:
        """Hangs up; jobs are not touched."""
        self._client.close()

    def __call__(
        self,
        request: SeparationRequest,
        output: OutputOptions | None = None,
        *,
        on_event: EventCallback | None = None,
        cancel: CancelToken | None = None,
        store: ModelStore | None = None,
        models: ModelCache | None = None,
        force_refresh: bool = False,
    ) -> SeparationReport:
        """As :func:`~revithion_stems.api.separate_to_files`; same arguments, same errors."""
        output, cancel, store = output or OutputOptions(), cancel or CancelToken(), store or ModelStore()
        replay = EventReplay(request, output, EventStream(f"job-{next(self._numbers)}", on_event))
        parameters = self._parameters(request, output, force_refresh=force_refresh, offline=store.offline)
        if parameters is not None and not self._lost and not cancel.cancelled:
            try:
                for event in self._events(parameters, replay, cancel):
                    replay.take(event, cancel)
                return replay.report()
            except _Lost:
                self._lost = True
        return separate_to_files(
            request,
            output,
            on_event=lambda event: replay.take(event, cancel, raising=False),
            cancel=cancel,
            store=store,
            models=models,
            force_refresh=force_refresh,
        )

    def _parameters(
        self, request: SeparationRequest, output: OutputOptions, *, force_refresh: bool, offline: bool
    ) -> JobParameters | None:
        try:
            return to_parameters(request, output, force_refresh=force_refresh, offline=offline, span_s=0.0)
        except RevithionError:
            return None

    def _events(self, parameters: JobParameters, replay: EventReplay, cancel: CancelToken) -> Iterator[JobEvent]:
        """The job's events, from the first to the last; none if the daemon does not want the job."""
        following = _Following(self._client)
        try:
            following.submit(parameters)
        except RevithionError:  # whatever is wrong with it, this process will say it in its own words
            raise _Lost from None
        began, asked_to_cancel = time.monotonic(), False
        while True:
            if cancel.cancelled and not asked_to_cancel:
                asked_to_cancel = following.cancel()
            for event in following.news():
                yield event
                if isinstance(event, JobChanged) and event.state.is_final:
                    return
            if replay.state is JobState.QUEUED and time.monotonic() - began > _TOLD_TO_WAIT_S:
                began = float("inf")
                replay.stream.notice(
                    "job.waiting", "waiting for other jobs of the daemon (--no-daemon does not wait for them)"
                )
            time.sleep(_POLL_S)


class _Following:
    """One job of the daemon and what is new about it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answered = time.monotonic()
        self._job_id = self._epoch = ""
        self._seq = 0

    def submit(self, parameters: JobParameters) -> None:
        """Puts the job into the queue, and begins to follow it."""
        before = self._client.request(GetStatus(), timeout_s=_ANSWER_S)
        self._epoch, self._seq = before.epoch, before.seq
        key = uuid.uuid4().hex  # so that it may be sent again
        request = SubmitJob(job=parameters, priority=Priority.INTERACTIVE, idempotency_key=key)
        self._job_id = self._client.request(request, timeout_s=2 * _ANSWER_S).job.id
        self._answered = time.monotonic()

    def cancel(self) -> bool:
        """Asks the daemon to stop the job; whether it has heard."""
        try:
            self._client.request(CancelJob(job_id=self._job_id), timeout_s=_ANSWER_S)
        except RevithionError as exc:
            self._check_life(exc)
            return False
        return True

    def news(self) -> list[JobEvent]:
        """What happened to the job since the last call."""
        found: list[dict[str, Any]] = []
        try:
            more = True
            while more:
                page = self._client.request(GetEvents(epoch=self._epoch, seq=self._seq), timeout_s=_ANSWER_S)
                self._answered = time.monotonic()
                found += (message["event"] for message in page.events)
                if page.events:
                    self._seq = page.events[-1]["seq"]
                more = bool(page.events) and self._seq < page.last_seq
        except RevithionError as exc:
            if exc.code == "events.gone":
                return self._resynchronised()
            self._check_life(exc)
        return list(self._own(found))

    def _own(self, events: Iterable[dict[str, Any]]) -> Iterator[JobEvent]:
        for data in events:
            if data.get("job_id") != self._job_id:
                continue
            try:
                yield event_from_dict(data)
            except ValueError:  # of a kind that is not a job's
                continue

    def _resynchronised(self) -> list[JobEvent]:
        """After a restart of the daemon: where the job stands, as events."""
        try:
            snapshot = self._client.request(GetSnapshot(), timeout_s=_ANSWER_S)
            job = self._client.request(GetJob(job_id=self._job_id), timeout_s=_ANSWER_S).job
        except RevithionError as exc:
            self._check_life(exc)
            return []
        self._epoch, self._seq, self._answered = snapshot.epoch, snapshot.seq, time.monotonic()
        told: list[dict[str, Any]] = []
        if job.summary is not None:
            told = [{**stem, "type": "StemReady"} for stem in job.stems] + [{**job.summary, "type": "JobSummary"}]
        error = None if job.error is None else {name: getattr(job.error, name) for name in ("code", "message", "hint")}
        changed = {"type": "JobChanged", "state": job.state.value, "source": job.parameters.source, "error": error}
        return list(self._own({"seq": 0, **data, "job_id": self._job_id} for data in (*told, changed)))

    def _check_life(self, error: RevithionError) -> None:
        if error.code == "job.unknown" or time.monotonic() - self._answered > _LOST_S:
            raise _Lost from error
