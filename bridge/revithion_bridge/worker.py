"""The process that computes: jobs come in on stdin, events and ends go out on stdout, one JSON object a line.

``python -m revithion_bridge.worker [--device auto|cpu|cuda|mps]`` is started by
:class:`~revithion_bridge.worker_link.WorkerLink`; see :mod:`revithion_bridge.worker_messages` for the lines. It may be
killed at any moment: the journal of the job that runs has all network runs that are finished. It ends when stdin does.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from revithion_bridge.memory_admission import Verdict, admit, release_memory, resident_bytes, too_large
from revithion_bridge.messages import ErrorInfo
from revithion_bridge.parameters import to_request
from revithion_bridge.span_sink import SpanSink
from revithion_bridge.worker_messages import Deferred, Finished, Ready, Run, Stop, ToWorker
from revithion_bridge.worker_output import JobEvents, LineWriter
from revithion_stems.engines import available_device
from revithion_stems.errors import RevithionError, out_of_memory, unexpected_error
from revithion_stems.events import CancelToken
from revithion_stems.file_sink import FileSink
from revithion_stems.model_loading import ModelCache
from revithion_stems.outputs import OutputOptions
from revithion_stems.planning import expected_memory, record_run_s
from revithion_stems.requests import DEVICE_NAMES, SeparationRequest
from revithion_stems.runner import StagedSeparation
from revithion_stems.sinks import Sink
from revithion_stems.store import ContentStore
from revithion_stems.weights import ModelStore

MAX_LINE_BYTES = 1 << 20
"""Of what comes in; messages to the daemon are smaller."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Task:
    """A job that came in, with the token that stops it; ``segment_s`` is filled in once it is known."""

    run: Run
    cancel: CancelToken = field(default_factory=CancelToken)
    segment_s: float | None = None


class Worker:
    """Does jobs one after the other on the thread that calls :meth:`work`, and keeps the last model warm.

    Args:
        lines: What the daemon says.
        writer: Where the answers go.
        device: What ``--device`` said: with ``cpu``, ``auto`` in a job means the CPU too.
    """

    def __init__(self, lines: BinaryIO, writer: LineWriter, device: str) -> None:
        self._lines = lines
        self._writer = writer
        self._device = device
        self._models = ModelCache()
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._open: dict[str, _Task] = {}  # written by the reader, emptied by the thread that works
        self._lock = threading.Lock()

    def work(self) -> None:
        """Does what comes in; never returns."""
        threading.Thread(target=self._read, name="lines", daemon=True).start()
        self._writer.send(Ready(pid=os.getpid(), device=available_device() if self._device == "auto" else self._device))
        while True:
            task = self._tasks.get()
            answer = self._answer(task)
            with self._lock:
                self._open.pop(task.run.job_id, None)
            self._writer.send(answer)

    def _read(self) -> None:
        """Takes lines until there are no more, and ends the process then: nothing of it is worth waiting for."""
        decoder = msgspec.json.Decoder[ToWorker](ToWorker)
        status = 0
        try:
            while line := self._lines.readline(MAX_LINE_BYTES):
                message: ToWorker = decoder.decode(line)
                match message:
                    case Run() as run:
                        task = _Task(run=run)
                        with self._lock:
                            self._open[run.job_id] = task
                        self._tasks.put(task)
                    case Stop(job_id=job_id):
                        with self._lock:
                            stopped = self._open.get(job_id)
                        if stopped is not None:
                            stopped.cancel.cancel()
        except BaseException as exc:  # noqa: BLE001 — a worker that hears nothing any more must not live on
            os.write(2, f"worker: unreadable line: {exc}\n".encode(errors="replace"))
            status = 1
        os._exit(status)

    def _answer(self, task: _Task) -> Deferred | Finished:
        """Does a job. Whatever goes wrong is in the answer."""
        error: RevithionError | None = None
        try:
            deferred = self._do(task)
            if deferred is not None:
                return deferred
        except RevithionError as exc:
            error = exc
        except MemoryError:
            error = out_of_memory("beside the separation")
        except BaseException as exc:
            _logger.exception("job %s met a bug", task.run.job_id)
            error = unexpected_error(exc)
        info = None
        if error is not None:
            info = ErrorInfo(**error.as_dict())
            # Its traceback holds the arrays of the job: the next one would need its own beside them.
            error.__traceback__ = error.__cause__ = error.__context__ = None
            release_memory()
        return Finished(
            job_id=task.run.job_id,
            error=info,
            segment_s=task.segment_s,
            model=self._models.loaded,
            memory_bytes=resident_bytes(),
        )

    def _do(self, task: _Task) -> Deferred | None:
        """Does a job; returns why it was not started, if only memory that others have at the moment is missing.

        Raises:
            RevithionError: It failed or was stopped; where it had begun, its last event was sent.
        """
        run, parameters = task.run, task.run.parameters
        if run.segment_s is not None:
            parameters = msgspec.structs.replace(parameters, segment_s=run.segment_s)
        if parameters.device == "auto" and self._device == "cpu":
            parameters = msgspec.structs.replace(parameters, device="cpu")
        request, output = to_request(parameters)
        store = ModelStore(offline=parameters.offline)
        deferred = self._admit(task, request, store)
        if deferred is not None:
            return deferred
        events = JobEvents(run.job_id, self._writer)
        report = StagedSeparation(
            request,
            _sink(run, request, output, events),
            on_event=events.tell,
            cancel=task.cancel,
            store=store,
            models=self._models,
            contents=ContentStore(),
            force_refresh=parameters.force_refresh,
            job_id=run.job_id,
        ).run()
        record_run_s(report.model, report.engine, report.device, request.threads, report.run_s)
        return None

    def _admit(self, task: _Task, request: SeparationRequest, store: ModelStore) -> Deferred | None:
        try:
            expected = expected_memory(request, store=store)
        except RevithionError:
            return None  # the job will meet it too, and tells about it in events
        task.segment_s = expected.segment_s
        verdict, memory = admit(expected.peak_bytes, expected.device, self._models)
        match verdict:
            case Verdict.FITS:
                return None
            case Verdict.NEVER:
                raise too_large(expected.peak_bytes, memory)
            case Verdict.LATER if task.run.waited:
                return None
            case Verdict.LATER:
                needed = memory.missing(expected.peak_bytes)
                return Deferred(job_id=task.run.job_id, needed_bytes=needed, free_bytes=memory.free_bytes)


def _sink(run: Run, request: SeparationRequest, output: OutputOptions, events: JobEvents) -> Sink:
    sink = FileSink(request, output)
    if run.spans is None or run.parameters.span_s <= 0:
        return sink
    return SpanSink(sink, Path(run.spans), span_s=run.parameters.span_s, on_span=events.span, on_lost=events.spans_lost)


def main() -> None:
    """Runs the worker until stdin ends."""
    parser = argparse.ArgumentParser(prog="revithion_bridge.worker", description="Started by the daemon.")
    parser.add_argument("--device", choices=DEVICE_NAMES, default="auto")
    device: str = parser.parse_args().device
    # What libraries print goes to the log, and never between two lines of ours.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    faulthandler.enable(all_threads=False)  # the daemon keeps the last lines of what is printed
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Ctrl-C in a terminal, or a system that goes down, tells all processes at once; the daemon decides for us.
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    Worker(sys.stdin.buffer, LineWriter(out), device).work()


if __name__ == "__main__":
    main()
