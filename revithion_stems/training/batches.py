"""Batches in an order that follows from the step alone, so that a run that was killed goes on with the same ones."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

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
    """Batches float32 ``[B, S, 2, frames]`` from a step on, ``accumulate`` of them per step."""
    workers = config.examples.workers
    loader = DataLoader(
        examples,
        batch_sampler=_Order(config, first_step, rank, processes),
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    torch.set_num_threads(1)
