"""Training in this process, or in several that share the work of each step (``torch.distributed``)."""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed
import torch.multiprocessing
from torch.multiprocessing.spawn import start_processes

from revithion_stems.errors import EngineError, RevithionError
from revithion_stems.events import CancelToken
from revithion_stems.output_errors import output_errors
from revithion_stems.training.batches import interrupts_kept_from_children
from revithion_stems.training.checkpoints import LAST, Progress, load_checkpoint
from revithion_stems.training.train_config import TrainConfig
from revithion_stems.training.train_events import TrainEventCallback
from revithion_stems.training.trainer import Trainer

_LOOPBACK: Final = "lo0" if sys.platform == "darwin" else "lo"
_POLL_S: Final = 0.2


def train(
    config: TrainConfig,
    run_folder: Path,
    *,
    on_event: TrainEventCallback,
    cancel: CancelToken,
    processes: int = 1,
) -> Progress:
    """Trains to the end, from where the run in the folder is.

    Started by ``torchrun``, it is one of the processes that `torchrun` says; only the first one reports.

    Args:
        config: Of the run.
        run_folder: Is made if it isn't there.
        on_event: Called on this thread.
        cancel: Ends it after the step in work, with a checkpoint.
        processes: On this machine: one per GPU, or several on a CPU, where two of one thread are faster than one of
            two. Each takes a batch of every step. The same number gives the same weights.

    Raises:
        RevithionError: As :meth:`revithion_stems.training.trainer.Trainer.run`.
    """
    with output_errors(run_folder):
        run_folder.mkdir(parents=True, exist_ok=True)
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1:
        torch.distributed.init_process_group(_backend(config))
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        try:
            return Trainer(config, run_folder, on_event=on_event, cancel=cancel, rank=rank, processes=world).run()
        finally:
            _leave_group()
    if processes == 1:
        return Trainer(config, run_folder, on_event=on_event, cancel=cancel).run()
    return _train_in_several(config, run_folder, on_event, cancel, processes)


def _train_in_several(
    config: TrainConfig, run_folder: Path, on_event: TrainEventCallback, cancel: CancelToken, processes: int
) -> Progress:
    context: Any = torch.multiprocessing.get_context("spawn")
    events, stop = context.Queue(), context.Event()
    with tempfile.TemporaryDirectory() as meeting:
        arguments = (config, run_folder, processes, str(Path(meeting) / "meeting"), events, stop)
        with interrupts_kept_from_children():
            running: Any = start_processes(
                _one_of_several, arguments, nprocs=processes, join=False, start_method="spawn"
            )
        failure: RevithionError | None = None
        try:
            while any(process.is_alive() for process in running.processes) or not events.empty():
                if cancel.cancelled:
                    stop.set()
                try:
                    event = events.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if isinstance(event, RevithionError):
                    failure = failure or event
                    break
                on_event(event)
        finally:
            stop.set()
            for process in running.processes:
                process.join(timeout=5.0 if failure else None)
                if process.is_alive():  # it waits for the one that failed
                    process.kill()
                    process.join()
    if failure is not None:
        raise failure
    cancel.raise_if_cancelled()
    codes = [process.exitcode for process in running.processes]
    if any(codes):
        raise EngineError(
            f"a process of the training ended by itself, exit codes {codes}",
            hint="Run the same command again to go on; with fewer --processes if memory ran out.",
            code="engine.failed",
        )
    return load_checkpoint(run_folder / LAST).progress


def _one_of_several(
    rank: int, config: TrainConfig, run_folder: Path, processes: int, meeting: str, events: Any, stop: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent tells us to stop
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK)
    if config.device == "cpu" and config.threads is None:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    meeting_file = Path(meeting).as_uri()
    torch.distributed.init_process_group(_backend(config), init_method=meeting_file, rank=rank, world_size=processes)
    try:
        cancel = _SharedToken(stop)
        Trainer(config, run_folder, on_event=events.put, cancel=cancel, rank=rank, processes=processes).run()
    except RevithionError as exc:
        if not stop.is_set():
            events.put(exc)
    finally:
        _leave_group()


def _leave_group() -> None:
    gc.collect()  # DDP's module is part of a cycle and holds the group, whose threads may not live on to the exit
    torch.distributed.destroy_process_group()


class _SharedToken(CancelToken):
    """A token that the parent process raises."""

    def __init__(self, stop: Any) -> None:
        super().__init__()
        self._stop = stop

    @property
    def cancelled(self) -> bool:
        """Whether it was raised here or there."""
        return super().cancelled or self._stop.is_set()


def _backend(config: TrainConfig) -> str:
    return "nccl" if config.device == "cuda" else "gloo"
