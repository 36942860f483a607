"""Batches in an order that follows from the step alone, so that a run that was killed goes on with the same ones."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Generator, Iterator
from multiprocessing import resource_tracker

import torch
from torch.utils.data import DataLoader, Sampler

from revithion_stems.errors import EngineError
from revithion_stems.training.examples import Examples
from revithion_stems.training.train_config import TrainConfig


class _Order(Sampler[list[int]]):
    """Numbers of the examples of each batch, for one of several processes, from a step on."""

    def __init__(self, config: TrainConfig, first_step: int, rank: int, processes: int) -> None:
        self._batch = config.examples.batch
        self._accumulate = config.optimiser.accumulate
        self._batches = range(first_step * self._accumulate, config.steps * self._accumulate)
        self._rank, self._processes = rank, processes

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            first = (batch * self._processes + self._rank) * self._batch
            yield list(range(first, first + self._batch))


def batches(
    config: TrainConfig, examples: Examples, first_step: int, *, rank: int, processes: int
) -> Iterator[torch.Tensor]:
    """Batches float32 ``[B, S, 2, frames]`` from a step on, ``accumulate`` of them per step.

    Raises:
        EngineError: A process that prepares them failed or was ended; raised by the iterator.
    """
    workers = config.examples.workers
    loader = DataLoader(
        examples,
        batch_sampler=_Order(config, first_step, rank, processes),
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
    )
    with interrupts_kept_from_children():
        feed = iter(loader)
    return _typed(feed)


@contextlib.contextmanager
def interrupts_kept_from_children() -> Generator[None]:
    """Processes that are started inside don't get Ctrl-C, not even in the seconds before they can ignore it.

    They inherit this thread's mask. Windows has none; there they ignore Ctrl-C once they run.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # it comes with the first child, and in starting takes the mask away
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _typed(feed: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    try:
        yield from feed
    # PyTorch's for a worker that is gone, and for all that it can't raise again here; or a pipe's that breaks first.
    except (RuntimeError, OSError, EOFError) as exc:
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[-1]
        raise EngineError(
            f"a process that prepares examples failed: {reason}",
            hint="Run the same command again to go on; with workers = 0 if memory ran out.",
            code="engine.failed",
        ) from exc


def _one_thread(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    torch.set_num_threads(1)
