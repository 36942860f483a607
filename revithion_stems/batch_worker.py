"""One worker of a cluster: does one file at a time, keeps the model, and tells what happens when it is asked."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import platform
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from revithion_stems.batch_inputs import is_url
from revithion_stems.batch_items import Batch, BatchItem, BatchResult
from revithion_stems.errors import RevithionError, unexpected_error
from revithion_stems.events import CancelToken, DownloadProgress, JobChanged, JobEvent, JobProgress, Notice, StemReady
from revithion_stems.model_loading import ModelCache
from revithion_stems.remote_files import fetch
from revithion_stems.remote_sink import RemoteSink, StandingFirst
from revithion_stems.reports import SeparationReport
from revithion_stems.runner import StagedSeparation
from revithion_stems.version import __version__
from revithion_stems.weights import ModelStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A file to do.

    Attributes:
        number: Of the item in the batch.
        item: The file, as the user named it.
        source: The same as an absolute path or URL.
        attempt: 1 for the first.
    """

    number: int
    item: BatchItem
    source: str
    attempt: int = 1

    @property
    def job_id(self) -> str:
        """What its events are marked with; every attempt is a job of its own."""
        return f"job-{self.number + 1}" + (f".{self.attempt}" if self.attempt > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """A worker that is ready: its name, and the version of this program on its node."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What happened since the last time, and how the task ended if it has."""

    events: tuple[JobEvent, ...]
    result: BatchResult | None


class Worker:
    """Does tasks one after the other. Methods are called by one thread; the work is on another one.

    Args:
        batch: Parameters; its items are not looked at.
        node: Name of the node.
    """

    def __init__(self, batch: Batch, node: str) -> None:
        self._batch = batch
        self._name = f"{platform.node()}-{node}/{os.getpid()}"
        self._store = ModelStore(offline=batch.offline)
        self._models = ModelCache()
        self._cancel = CancelToken()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "separation")
        self._work: concurrent.futures.Future[BatchResult] | None = None
        self._events: list[JobEvent] = []
        self._lock = threading.Lock()

    def greet(self) -> Greeting:
        """Answers as soon as the worker can work."""
        return Greeting(name=self._name, version=__version__)

    def work(self, task: Task | None, *, cancel: bool, wait_s: float) -> News:
        """Starts a task, or goes on with the one that was started, and tells the news.

        Args:
            task: A new task, if the last one has ended.
            cancel: Whether everything is to stop.
            wait_s: How long to wait for the end of the task.
        """
        if cancel:
            self._cancel.cancel()
        if task is not None:
            self._work = self._thread.submit(self._run, task)
        assert self._work is not None  # the first call brings a task
        concurrent.futures.wait([self._work], timeout=wait_s)
        result = self._work.result() if self._work.done() else None  # before the events, to have them all
        with self._lock:
            events, self._events = tuple(self._events), []
        return News(events=events, result=result)

    def _run(self, task: Task) -> BatchResult:
        started = time.monotonic()
        manifest = None
        try:
            with tempfile.TemporaryDirectory(prefix="revithion-") as scratch:
                end, manifest = self._separate(task, Path(scratch))
        except RevithionError as exc:
            end = exc
        except Exception as exc:  # noqa: BLE001 — a bug that one file brings out must not stop the others
            end = unexpected_error(exc)
        result = BatchResult.of(task.item, end, elapsed_s=time.monotonic() - started, worker=self._name)
        return dataclasses.replace(result, manifest=manifest)

    def _separate(self, task: Task, scratch: Path) -> tuple[SeparationReport, str]:
        check = self._cancel.raise_if_cancelled
        check()
        source = Path(task.source)
        if is_url(task.source):
            fetched = scratch / "source"
            fetched.mkdir()
            source = fetch(task.source, fetched, check)
        batch = self._batch
        if batch.output_url is not None:
            batch = dataclasses.replace(
                batch, output=dataclasses.replace(batch.output, folder=scratch / "stems", keep=())
            )
        request = dataclasses.replace(batch.request, source=source)
        sink = RemoteSink(
            request,
            batch.output_for(task.item),
            root=batch.output.folder,
            url=batch.output_url,
            source_name=task.item.source,
            check=check,
        )

        def in_users_words(text: str) -> str:
            return text.replace(str(source), task.item.source)

        def on_event(event: JobEvent) -> None:
            event = dataclasses.replace(event, job_id=task.job_id)
            match event:
                case JobChanged(error=error):
                    error = error and {name: in_users_words(text) for name, text in error.items()}
                    event = dataclasses.replace(event, source=task.item.source, error=error)
                case Notice(message=message):
                    event = dataclasses.replace(event, message=in_users_words(message))
                case StemReady(path=path):
                    event = dataclasses.replace(event, path=sink.place(Path(path)))
                case _:
                    pass
            self._tell(event)

        job = StagedSeparation(
            request,
            sink,
            on_event=on_event,
            cancel=self._cancel,
            store=self._store,
            models=self._models,
            contents=StandingFirst(sink),
            force_refresh=batch.force_refresh,
        )
        try:
            report = job.run()
        except RevithionError as exc:
            raise type(exc)(in_users_words(exc.message), hint=exc.hint, code=exc.code) from exc
        assert report.manifest is not None  # these stems are files
        return report, sink.place(report.manifest)

    def _tell(self, event: JobEvent) -> None:
        """Keeps an event until somebody asks; of progress only the last, so that what is kept does not grow."""
        with self._lock:
            if (
                self._events
                and isinstance(event, JobProgress | DownloadProgress)
                and type(self._events[-1]) is type(event)
            ):
                self._events[-1] = event
            else:
                self._events.append(event)
