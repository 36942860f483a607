"""A batch on this machine: the next file is read and the previous one encoded while the network runs on the current."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from revithion_stems.batch_items import Batch, BatchResult
from revithion_stems.errors import RevithionError, unexpected_error
from revithion_stems.events import CancelToken, EventCallback, JobEvent
from revithion_stems.file_sink import FileSink
from revithion_stems.model_loading import ModelCache
from revithion_stems.planning import record_run_s
from revithion_stems.reports import SeparationReport
from revithion_stems.runner import StagedSeparation
from revithion_stems.weights import ModelStore


def run_local(
    batch: Batch,
    *,
    on_event: EventCallback | None = None,
    on_result: Callable[[BatchResult], None] | None = None,
    cancel: CancelToken | None = None,
    store: ModelStore | None = None,
) -> list[BatchResult]:
    """Separates the files of a batch. Blocking; any thread, which the networks then run on.

    At most three files are in work: one is prepared, one separated, one delivered, each on a thread of its own. Memory
    and disk in use thus do not grow with the number of files. A file that fails does not stop the others.

    Args:
        batch: What to separate; items are paths.
        on_event: Called with the events of all files, from several threads but one call at a time.
        on_result: Called likewise as each file ends, in the order in which they do.
        cancel: Cancelling it stops all files before the next network run. An exception from a callback cancels it too,
            and is raised in the end.
        store: Where weights are; by default the user's.

    Returns:
        A result per item, in their order.
    """
    cancel = cancel or CancelToken()
    callbacks = _Callbacks(on_event, on_result, cancel)
    line = _Line(batch, callbacks, cancel, store)
    with (
        contextlib.closing(line),
        ThreadPoolExecutor(1, "prepare") as preparing,
        ThreadPoolExecutor(1, "deliver") as delivering,
    ):
        try:
            ahead: Future[bool] | None = None
            behind: Future[bool] | None = None
            for number in range(len(batch.items)):
                prepared = line.prepare(number) if ahead is None else ahead.result()
                if number + 1 < len(batch.items):
                    ahead = preparing.submit(line.prepare, number + 1)
                if prepared and line.separate(number):
                    if behind is not None:
                        behind.result()  # one at a time: encoding must not fall behind without a limit
                    behind = delivering.submit(line.deliver, number)
        except BaseException:
            cancel.cancel()  # else the threads would be waited for until their files are through
            raise
    callbacks.raise_failure()
    return line.results


class _Callbacks:
    """Makes calls from several threads one after the other, and keeps the first exception for the end."""

    def __init__(
        self,
        on_event: EventCallback | None,
        on_result: Callable[[BatchResult], None] | None,
        cancel: CancelToken,
    ) -> None:
        self._on_event = on_event
        self._on_result = on_result
        self._cancel = cancel
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def event(self, event: JobEvent) -> None:
        self._call(self._on_event, event)

    def result(self, result: BatchResult) -> None:
        self._call(self._on_result, result)

    def _call(self, callback: Callable[[Any], None] | None, value: object) -> None:
        with self._lock:
            if callback is None or self._failure is not None:
                return
            try:
                callback(value)
            except BaseException as exc:  # noqa: BLE001 — raised again by raise_failure
                self._failure = exc
                self._cancel.cancel()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


class _Line:
    """The stages of the file of a number. Each says whether it goes on to the next one; if not, its result is known."""

    def __init__(self, batch: Batch, callbacks: _Callbacks, cancel: CancelToken, store: ModelStore | None) -> None:
        self._batch = batch
        self._callbacks = callbacks
        self._cancel = cancel
        self._store = store or ModelStore(offline=batch.offline)
        self._models = ModelCache()
        self._jobs: dict[int, StagedSeparation] = {}
        self._spent_s: dict[int, float] = {}
        self._results: dict[int, BatchResult] = {}

    @property
    def results(self) -> list[BatchResult]:
        return [self._results[number] for number in range(len(self._batch.items))]

    def close(self) -> None:
        """Ends jobs that stood between two stages when an exception stopped the line."""
        for job in self._jobs.values():
            job.close()

    def prepare(self, number: int) -> bool:
        def action() -> SeparationReport | None:
            self._cancel.raise_if_cancelled()
            item = self._batch.items[number]
            request = self._batch.request_for(item)
            job = self._jobs[number] = StagedSeparation(
                request,
                FileSink(request, self._batch.output_for(item)),
                on_event=self._callbacks.event,
                cancel=self._cancel,
                store=self._store,
                models=self._models,
                force_refresh=self._batch.force_refresh,
            )
            job.prepare()
            return job.report

        return self._run(number, action)

    def separate(self, number: int) -> bool:
        return self._run(number, self._jobs[number].separate)

    def deliver(self, number: int) -> bool:
        return self._run(number, self._jobs[number].deliver)

    def _run(self, number: int, action: Callable[[], SeparationReport | None]) -> bool:
        started = time.monotonic()
        end: SeparationReport | RevithionError | None
        try:
            end = action()
        except RevithionError as exc:
            end = exc
        except Exception as exc:  # noqa: BLE001 — a bug that one file brings out must not stop the others
            end = unexpected_error(exc)
        self._spent_s[number] = self._spent_s.get(number, 0.0) + time.monotonic() - started
        if end is None:
            return True
        if number in self._jobs:
            self._jobs.pop(number).close()
        if isinstance(end, SeparationReport):
            record_run_s(end.model, end.engine, end.device, self._batch.request.threads, end.run_s)
        result = BatchResult.of(self._batch.items[number], end, elapsed_s=self._spent_s.pop(number))
        self._results[number] = result
        self._callbacks.result(result)
        return False
