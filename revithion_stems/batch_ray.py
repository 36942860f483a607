"""A batch over a Ray cluster: one worker per GPU, or per some CPU cores, and every file exactly once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revithion_stems.batch_inputs import is_url
from revithion_stems.batch_items import Batch, BatchResult
from revithion_stems.batch_worker import Greeting, News, Task, Worker
from revithion_stems.errors import Cancelled, EngineError, RevithionError
from revithion_stems.events import CancelToken, EventCallback, JobChanged, Notice
from revithion_stems.jobs import JobState
from revithion_stems.ray_cluster import WorkerShape, capacity, connect, first_line, no_room_error, worker_shape
from revithion_stems.version import __version__

_NODE_DIGITS = 6
_TICK_S = 0.1
_NEWS_S = 1.0
"""How often a worker that is busy is heard."""
_HIRE_EVERY_S = 2.0
_WAIT_FOR_NODES_S = 300.0
"""How long a batch waits for a node when none is left that takes workers."""


def run_ray(
    batch: Batch,
    *,
    on_event: EventCallback | None = None,
    on_result: Callable[[BatchResult], None] | None = None,
    cancel: CancelToken | None = None,
    address: str | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
    attempts: int = 3,
) -> list[BatchResult]:
    """Separates the files of a batch on a Ray cluster. Blocking; any thread, which calls the callbacks.

    Each worker does one file at a time and keeps the model. The file of a worker that is lost is done again by another
    one; what stands complete at its destination is not computed again. Nodes that join are used. Paths must mean the
    same on all nodes; files with URLs are fetched and published by the workers.

    Args:
        batch: What to separate; sources and the output may be URLs.
        on_event: Called with the events of all files. A file that is done again is another job.
        on_result: Called as each file ends, in the order in which they do.
        cancel: Cancelling it stops all files before their next network run.
        address: ``host:port`` or ``auto``; by default ``RAY_ADDRESS``, else a cluster of this machine alone is started
            for this call. It listens on the loopback interface only.
        cpus_per_worker: CPU cores that a worker counts for, and that its network uses; by default 1 beside a GPU, else
            as many as the smallest node has, at most 4.
        gpus_per_worker: GPUs that a worker counts for, or a part; by default 1 if there are any and the request's
            device allows, else 0.
        attempts: How many workers a file may lose before it counts as failed.

    Returns:
        A result per item, in their order.

    Raises:
        EngineError: ``engine.missing`` without Ray, ``batch.cluster`` if there is no cluster or its nodes can't work,
            ``batch.no_workers`` if no node has room for a worker.
    """
    cancel = cancel or CancelToken()
    with connect(address) as ray:
        shape = worker_shape(ray, batch.request.device, cpus_per_worker, gpus_per_worker)
        if capacity(ray, shape) == 0:
            raise no_room_error(shape)
        crew = _Crew(ray, batch, shape, attempts, cancel, on_event or _ignore, on_result or _ignore)
        crew.run()
        return crew.results


class _NodeWorker(Worker):
    """A worker that tells which of Ray's nodes it is on."""

    def __init__(self, batch: Batch) -> None:
        import ray

        super().__init__(batch, ray.get_runtime_context().get_node_id()[:_NODE_DIGITS])


@dataclass(slots=True, kw_only=True, eq=False)
class _Hand:
    """A worker, as seen from here."""

    actor: Any
    name: str = ""
    task: Task | None = None
    seq: int = -1


class _Crew:
    """The workers, the files that wait for them, and the one call that each worker has to answer at a time."""

    def __init__(
        self,
        ray: Any,
        batch: Batch,
        shape: WorkerShape,
        attempts: int,
        cancel: CancelToken,
        on_event: EventCallback,
        on_result: Callable[[BatchResult], None],
    ) -> None:
        self._ray = ray
        self._shape = shape
        self._attempts = attempts
        self._cancel = cancel
        self._on_event = on_event
        self._on_result = on_result
        self._settings = _settings(batch)
        self._waiting = deque(
            Task(number=number, item=item, source=_anywhere(item.source)) for number, item in enumerate(batch.items)
        )
        self._count = len(batch.items)
        self._calls: dict[Any, _Hand] = {}
        self._idle: list[_Hand] = []
        self._results: dict[int, BatchResult] = {}
        self._ever_welcomed = False
        self._failed_starts = 0
        self._next_hiring = 0.0
        self._last_chance = time.monotonic()
        variables = {name: value for name, value in os.environ.items() if name.startswith("REVITHION_")}
        self._actor = ray.remote(
            num_cpus=shape.cpus, num_gpus=shape.gpus, max_restarts=0, runtime_env={"env_vars": variables}
        )(_NodeWorker)

    @property
    def results(self) -> list[BatchResult]:
        return [self._results[number] for number in range(self._count)]

    def run(self) -> None:
        while len(self._results) < self._count:
            if self._cancel.cancelled:
                self._give_up(_cancelled())
            self._hire()
            while self._idle and self._waiting:
                hand = self._idle.pop()
                hand.task, hand.seq = self._waiting.popleft(), -1
                self._ask(hand, hand.task)
            self._listen()

    def _hire(self) -> None:
        """Keeps more workers asked for than there is room: a node that joins is used at once, and a cluster that
        grows by demand sees some."""
        now = time.monotonic()
        if now < self._next_hiring or self._cancel.cancelled:
            return
        self._next_hiring = now + _HIRE_EVERY_S
        room = capacity(self._ray, self._shape)
        hands = len(self._calls) + len(self._idle)
        if room and self._failed_starts < self._attempts:
            self._last_chance = now
        elif now > self._last_chance + _WAIT_FOR_NODES_S:
            self._give_up(no_room_error(self._shape))
        for _ in range(min(self._count - len(self._results), max(1, 2 * room)) - hands):
            hand = _Hand(actor=self._actor.remote(self._settings))
            self._calls[hand.actor.greet.remote()] = hand

    def _ask(self, hand: _Hand, task: Task | None = None) -> None:
        call = hand.actor.work.remote(task, cancel=self._cancel.cancelled, wait_s=_NEWS_S)
        self._calls[call] = hand

    def _listen(self) -> None:
        if not self._calls:
            time.sleep(_TICK_S)
            return
        calls = list(self._calls)
        for call in self._ray.wait(calls, num_returns=len(calls), timeout=_TICK_S)[0]:
            hand = self._calls.pop(call)
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayError as exc:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.kill(hand.actor)  # it may be out of reach only, and must not go on
                self._lose(hand, exc)
                continue
            if isinstance(answer, Greeting):
                self._welcome(hand, answer)
            else:
                self._hear(hand, answer)

    def _welcome(self, hand: _Hand, greeting: Greeting) -> None:
        if greeting.version != __version__:
            raise EngineError(
                f"worker {greeting.name} runs version {greeting.version} of revithion-stems, not {__version__}",
                hint="Install the same version on all nodes.",
                code="batch.cluster",
            )
        self._ever_welcomed, self._failed_starts = True, 0
        hand.name = greeting.name
        self._idle.append(hand)

    def _hear(self, hand: _Hand, news: News) -> None:
        for event in news.events:
            hand.seq = event.seq
            self._on_event(event)
        if news.result is None:
            self._ask(hand)
        else:
            assert hand.task is not None
            self._record(hand.task, news.result)
            hand.task = None
            self._idle.append(hand)

    def _lose(self, hand: _Hand, cause: Exception) -> None:
        # Idle workers of the same node are lost too, and must not cost a file its attempts: they have to greet again.
        self._calls.update((idle.actor.greet.remote(), idle) for idle in self._idle)
        self._idle.clear()
        reason = first_line(cause)
        if hand.task is None:
            self._failed_starts += not hand.name
            if self._failed_starts >= self._attempts and not self._ever_welcomed:
                raise EngineError(
                    f"no worker can be started: {reason}",
                    hint="Install revithion-stems[ray], in this version, on all nodes; Ray's logs tell more.",
                    code="batch.cluster",
                ) from cause
            return
        task = hand.task
        retry = task.attempt < self._attempts
        error = EngineError(
            f"worker {hand.name} was lost in attempt {task.attempt} of {self._attempts}: {reason}",
            hint="Nothing to do: another worker begins the file again."
            if retry
            else "Look into Ray's logs; if memory ran out, give workers more with --cpus-per-worker.",
            code="batch.worker_lost",
        )
        self._on_event(Notice(job_id=task.job_id, seq=hand.seq + 1, code=error.code, message=error.message))
        if hand.seq >= 0:  # else nobody has heard of this job
            end = JobChanged(
                job_id=task.job_id,
                seq=hand.seq + 2,
                state=JobState.FAILED,
                source=task.item.source,
                error=error.as_dict(),
            )
            self._on_event(end)
        if self._cancel.cancelled:
            self._record(task, BatchResult.of(task.item, _cancelled(), elapsed_s=0.0))
        elif retry:
            self._waiting.appendleft(dataclasses.replace(task, attempt=task.attempt + 1))
        else:
            self._record(task, BatchResult.of(task.item, error, elapsed_s=0.0, worker=hand.name))

    def _give_up(self, error: RevithionError) -> None:
        """Ends all files that no worker is at."""
        while self._waiting:
            task = self._waiting.popleft()
            self._record(task, BatchResult.of(task.item, error, elapsed_s=0.0))

    def _record(self, task: Task, result: BatchResult) -> None:
        self._results[task.number] = result
        self._on_result(result)


def _ignore(_: object) -> None:
    pass


def _anywhere(source: str) -> str:
    """A source so that it does not depend on where a process runs."""
    return source if is_url(source) else str(Path(source).absolute())


def _settings(batch: Batch) -> Batch:
    """The batch without its files, with paths that do not depend on where a process runs."""
    keep = tuple(path.absolute() for path in batch.output.keep)
    output = dataclasses.replace(batch.output, folder=batch.output.folder.absolute(), keep=keep)
    return dataclasses.replace(batch, items=(), output=output)


def _cancelled() -> RevithionError:
    return Cancelled("cancelled on request", hint="Run the same command again to go on.")
