"""The daemon's end of the mailbox: takes what DAW scripts ask for, has it separated, and answers with a plan.

A request is an errand; its state is in its files and in the ledger of the jobs, so that a daemon that was killed takes
it up again where it stood.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from revithion_bridge.daw.mailbox import BoxFile, DawStatus, box_path, open_sessions, write_file
from revithion_bridge.daw_desk.desk_files import RequestName, look_at_requests, offer_choices, sweep_mailbox
from revithion_bridge.daw_desk.desk_status import job_status
from revithion_bridge.daw_desk.desk_work import DeskWork, prepare_work, read_request
from revithion_bridge.daw_desk.strip_faders import session_strips
from revithion_bridge.errors import cancelled_error
from revithion_bridge.messages import (
    CancelJob,
    DawRequestInfo,
    DawSessionInfo,
    DawSessions,
    Done,
    ErrorInfo,
    GetSnapshot,
    JobInfo,
    JobReply,
    ListDaws,
    Reply,
    Request,
    RingDaw,
    Snapshot,
    SubmitJob,
    WaitJob,
)
from revithion_bridge.path_jail import PathJail
from revithion_bridge.service_api import Caller, Service
from revithion_stems.errors import Cancelled, RevithionError, error_from_dict, unexpected_error
from revithion_stems.jobs import JobState
from revithion_stems.scheduler import Priority

LOOK_S = 0.25
STATUS_S = 0.2
MOST_ERRANDS = 64
"""Requests in work at the same time; others wait in their files."""
_SWEEP_S = 3_600.0
_OFFER_S = 5.0
_LEAST_PAUSE_S = 0.02
_RETRY_S = 1.0
_LOG = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Errand:
    """A request in work."""

    file: BoxFile
    stop: threading.Event = field(default_factory=threading.Event)
    task: asyncio.Task[None] | None = None
    status: DawStatus | None = None
    jobs: list[str] = field(default_factory=list[str])

    def check(self) -> None:
        """Raises if it is not wanted any more; any thread."""
        if self.stop.is_set():
            raise cancelled_error()


class DawDesk:
    """Takes requests from the mailbox. On the daemon's loop; files are looked at in threads.

    Args:
        service: Does the jobs.
        jail: Which paths are allowed.
    """

    def __init__(self, service: Service, jail: PathJail) -> None:
        self._service = service
        self._jail = jail
        self._errands: dict[RequestName, _Errand] = {}
        self._over: set[RequestName] = set()
        self._rung = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="daw")

    @property
    def answers(self) -> dict[type[Request], Callable[[Any, Caller], Awaitable[Reply]]]:
        """The requests that it answers."""
        return {RingDaw: self._ring, ListDaws: self._list}

    def start(self) -> None:
        """Begins to look into the mailbox."""
        self._looking = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Ends; what is in work is taken up by the next daemon."""
        tasks = [errand.task for errand in self._errands.values()] + [self._looking]
        for errand in self._errands.values():
            errand.stop.set()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
        await asyncio.to_thread(self._preparer.shutdown, cancel_futures=True)

    async def _ring(self, _request: RingDaw, _caller: Caller) -> Done:
        self._rung.set()
        return Done()

    async def _list(self, _request: ListDaws, _caller: Caller) -> DawSessions:
        sessions = await asyncio.to_thread(open_sessions)
        return DawSessions(
            sessions=tuple(
                DawSessionInfo(
                    box=box,
                    daw=session.daw,
                    program=session.program,
                    name=session.name,
                    path=session.path,
                    sample_rate=session.sample_rate,
                    strips=session_strips(box, session),
                )
                for box, session in sessions.items()
            ),
            requests=tuple(
                DawRequestInfo(
                    box=errand.file.box,
                    id=errand.file.id,
                    state=errand.status.state,
                    fraction=errand.status.fraction,
                    remaining_s=errand.status.remaining_s,
                    text=errand.status.text,
                    jobs=tuple(errand.jobs),
                )
                for errand in self._errands.values()
                if errand.status is not None
            ),
        )

    # --- the mailbox ---

    async def _work(self) -> None:
        swept = offered = -_SWEEP_S
        while True:
            try:
                if time.monotonic() - swept >= _SWEEP_S:
                    swept = time.monotonic()
                    await asyncio.to_thread(sweep_mailbox)
                await self._look()
                if time.monotonic() - offered >= _OFFER_S:
                    offered = time.monotonic()
                    await asyncio.to_thread(offer_choices)
            except RevithionError as exc:
                _LOG.warning("the DAWs' choices are not renewed: %s", exc.message)
            except Exception:  # noqa: BLE001 - a mailbox that can't be read must not end the daemon
                _LOG.exception("the mailbox of the DAW scripts can't be looked at")
            await asyncio.sleep(_LEAST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), LOOK_S)
            self._rung.clear()

    async def _look(self) -> None:
        """Takes up what is new, passes on what is to be cancelled, and forgets what is gone."""
        requests, cancels, answered = await asyncio.to_thread(look_at_requests, frozenset(self._errands) | self._over)
        self._over = (self._over | answered) & requests.keys()
        for name in requests.keys() - self._over - self._errands.keys():
            if len(self._errands) < MOST_ERRANDS:
                errand = self._errands[name] = _Errand(file=requests[name])
                errand.task = asyncio.create_task(self._serve(name, errand))
        for name, errand in self._errands.items():
            if name in cancels:
                errand.stop.set()
            elif name not in requests and errand.task is not None:
                errand.stop.set()
                errand.task.cancel()

    # --- an errand ---

    async def _serve(self, name: RequestName, errand: _Errand) -> None:
        caller = Caller(client=errand.file.box.partition("-")[0], door="daw", request_id=errand.file.id)
        try:
            status = await self._outcome(errand, caller)
            while not await self._tell(errand, status):
                await asyncio.sleep(_RETRY_S)
            self._over.add(name)
        finally:
            del self._errands[name]

    async def _outcome(self, errand: _Errand, caller: Caller) -> DawStatus:
        request_id = errand.file.id
        try:
            work = await self._prepare(errand)
            infos = [await self._separate(errand, caller, work, number) for number in range(len(work.jobs))]
            plan = await asyncio.to_thread(work.plan, infos)
            return DawStatus(id=request_id, state=JobState.DONE.value, fraction=1.0, text="done", plan=plan)
        except Cancelled:
            state, text, error = JobState.CANCELLED, "cancelled", None
        except RevithionError as exc:
            state, text, error = JobState.FAILED, exc.message, exc
        except Exception as exc:  # noqa: BLE001 - who asked hears of it
            _LOG.exception("a request of a DAW failed")
            error = unexpected_error(exc)
            state, text = JobState.FAILED, error.message
        for job_id in errand.jobs:
            with contextlib.suppress(RevithionError):
                await self._service.handle(CancelJob(job_id=job_id), caller)
        told = None if error is None else ErrorInfo(code=error.code, message=error.message, hint=error.hint)
        return DawStatus(id=request_id, state=state.value, text=text, error=told)

    async def _prepare(self, errand: _Errand) -> DeskWork:
        loop = asyncio.get_running_loop()
        request = await asyncio.to_thread(read_request, errand.file)
        await self._tell(errand, DawStatus(id=request.id, state=JobState.QUEUED.value, text="looking at the audio"))
        return await loop.run_in_executor(self._preparer, prepare_work, request, self._jail, errand.check)

    async def _separate(self, errand: _Errand, caller: Caller, work: DeskWork, number: int) -> JobInfo:
        if not errand.jobs:  # all at once: they wait together, and each is found again by its key
            for job in work.jobs:
                submit = SubmitJob(job=job.parameters, priority=Priority.INTERACTIVE, idempotency_key=job.key)
                errand.jobs.append((await self._job(submit, caller)).id)
        wait = WaitJob(job_id=errand.jobs[number], timeout_s=STATUS_S)
        while not (info := await self._job(wait, caller)).state.is_final:
            errand.check()
            snapshot: Snapshot | None = None
            if info.state is JobState.QUEUED:
                reply = await self._service.handle(GetSnapshot(), caller)
                snapshot = reply if isinstance(reply, Snapshot) else None
            status = job_status(errand.file.id, info, number, errand.jobs, snapshot)
            await self._tell(errand, status)
        if info.error is not None:
            raise error_from_dict({"code": info.error.code, "message": info.error.message, "hint": info.error.hint})
        return info

    async def _job(self, request: SubmitJob | WaitJob, caller: Caller) -> JobInfo:
        reply = await self._service.handle(request, caller)
        assert isinstance(reply, JobReply)
        return reply.job

    async def _tell(self, errand: _Errand, status: DawStatus) -> bool:
        """Writes a status, if it is another one; whether that worked."""
        if status != errand.status:
            try:
                await asyncio.to_thread(write_file, box_path(errand.file.box, "status", errand.file.id), status)
            except OSError as exc:
                _LOG.warning("a DAW's status can't be written: %s", exc)
                return False
            errand.status = status
        return True
