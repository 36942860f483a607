"""The training loop of one process; :mod:`revithion_stems.training.running` starts one or several of them."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from revithion_stems.config import cache_dir
from revithion_stems.engines.torch_errors import is_out_of_memory
from revithion_stems.errors import Cancelled, ConfigError, EngineError, ModelError
from revithion_stems.events import CancelToken
from revithion_stems.models.architectures import build, config_of, options_of
from revithion_stems.training.batches import batches
from revithion_stems.training.checkpoints import BEST, LAST, Checkpoint, Progress, load_checkpoint, save_checkpoint
from revithion_stems.training.datasets.dataset_config import DatasetConfig
from revithion_stems.training.datasets.multitrack import Multitrack
from revithion_stems.training.datasets.opening import open_dataset
from revithion_stems.training.examples import Examples
from revithion_stems.training.losses import weighted_loss
from revithion_stems.training.optimisation import MeanWeights, learning_rate, make_optimiser
from revithion_stems.training.separating import Separating
from revithion_stems.training.source_commit import source_commit
from revithion_stems.training.train_config import Precision, TrainConfig
from revithion_stems.training.train_events import CheckpointSaved, StepDone, TrainEventCallback, ValidationDone
from revithion_stems.training.validation import validate

_PATIENCE_WITH_NAN: Final = 20
"""Steps in a row whose gradient is not finite, after which training is given up. Single ones are left out."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_MAX: Final = -4
_M_ARENA_MAX: Final = -8
"""Options of mallopt(3)."""


class Trainer:
    """One process of a training run. One thread.

    Args:
        config: Of the run.
        run_folder: Where checkpoints go; a run that is there goes on.
        on_event: Called on this thread.
        cancel: Looked at after every step; a checkpoint is written first.
        rank: Number of this process. Number 0 validates, saves and reports.
        processes: How many there are; if several, ``torch.distributed`` is initialised.

    Raises:
        ConfigError: The configuration doesn't fit its architecture, its data, or the run in the folder.
        RevithionError: What opening datasets and checkpoints raises.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_folder: Path,
        *,
        on_event: TrainEventCallback,
        cancel: CancelToken,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._config = config
        self._folder = run_folder
        self._on_event = on_event if rank == 0 else _ignore
        self._cancel = cancel
        self._rank, self._processes = rank, processes
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self._device = _device(config.device, rank)
        if self._device.type == "cpu":
            _keep_freed_memory()
        sizes = config_of(config.architecture, config.model)
        self._options = options_of(sizes)
        self._stems: tuple[str, ...] = sizes.stems
        if len(self._stems) < 2:
            raise ConfigError(
                f"stems = {list(self._stems)}: the mix is the sum of the stems, so one alone is the mix",
                hint='Add the rest of it, such as stems = ["vocals", "accompaniment"].',
                code="config.train",
            )
        torch.manual_seed(config.seed)
        self._network = build(config.architecture, config.model)
        self._data = [(song, item.weight) for item in config.data for song in self._open(item)]
        self._validation = [song for item in config.validation_data for song in self._open(item)] if rank == 0 else []
        self._origins = tuple(dict.fromkeys(song.origin for song, _ in self._data))
        self._commit = source_commit() if rank == 0 else None
        self._progress = Progress()
        self._resume()

    def _open(self, item: DatasetConfig) -> tuple[Multitrack, ...]:
        rate = int(self._options["sample_rate"])
        return open_dataset(item, self._stems, rate, cache_dir() / "datasets", on_event=self._on_event)

    def _resume(self) -> None:
        last = self._folder / LAST
        begun = load_checkpoint(last) if last.exists() else None
        weights = begun or (None if self._config.initial is None else load_checkpoint(self._config.initial))
        if weights is not None:
            if (weights.config.architecture, weights.options) != (self._config.architecture, self._options):
                raise ConfigError(
                    f"the network of {last if begun else self._config.initial} is not the one of the configuration: "
                    f"{weights.config.architecture} with {weights.options}",
                    hint="Use another folder for another network.",
                    code="config.train",
                )
            self._network.load_state_dict(weights.network if begun else weights.mean)
            self._origins = tuple(dict.fromkeys((*self._origins, *weights.origins)))
        self._network.to(self._device)
        self._mean = MeanWeights(self._network, self._config.optimiser.ema_decay)
        self._optimiser = make_optimiser(self._network, self._config.optimiser)
        if begun is not None:
            if begun.optimiser is None:
                raise ModelError(
                    f"{last} is a checkpoint to export from: without the optimiser's state no run can go on from it",
                    hint=f"Begin another run, in another folder, with initial = {str(last)!r}.",
                    code="model.unreadable",
                )
            if begun.config.optimiser.kind is not self._config.optimiser.kind:
                raise ConfigError(
                    f"{last} was trained with {begun.config.optimiser.kind.value}, whose state is of no use to "
                    f"{self._config.optimiser.kind.value}",
                    hint=f"Begin another run, in another folder, with initial = {str(last)!r}.",
                    code="config.train",
                )
            self._mean.network.load_state_dict(begun.mean)
            self._optimiser.load_state_dict(begun.optimiser)
            self._progress = begun.progress

    def run(self) -> Progress:
        """Trains to the end, from where the run in the folder is.

        Raises:
            Cancelled: On request; a checkpoint of the last step was written.
            EngineError: ``train.diverged``, or the device ran out of memory.
            OutputError: A checkpoint can't be written.
        """
        separating: nn.Module = Separating(self._network)
        if self._processes > 1:
            separating = DistributedDataParallel(separating)
        config, first = self._config, self._progress.step
        examples = Examples(config, self._data, self._stems)
        feed = batches(config, examples, first, rank=self._rank, processes=self._processes)
        if self._progress.owed and self._is_due():
            self._settle(cancelled=False)
        began = time.monotonic() - self._progress.seconds
        paced = time.monotonic()
        failed = 0
        for step in range(first, config.steps):
            if self._is_done():
                break
            rate = learning_rate(step, config.steps, config.optimiser)
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            torch.manual_seed(_step_seed(config.seed, step, self._rank))
            try:
                losses, norm = self._step(separating, feed)
            except (RuntimeError, MemoryError) as exc:
                if is_out_of_memory(exc):
                    raise EngineError(
                        f"memory ran out on {self._device} in step {step + 1}",
                        hint="Make batch or seconds of [examples] smaller, and accumulate of [optimiser] larger.",
                        code="engine.memory",
                    ) from exc
                raise
            finite = bool(torch.isfinite(norm))
            failed = 0 if finite else failed + 1
            if failed > _PATIENCE_WITH_NAN:
                raise EngineError(
                    f"the training has diverged: no finite gradient since step {step + 1 - failed}",
                    hint="Lower learning_rate, or go on from an older checkpoint.",
                    code="train.diverged",
                )
            if finite:
                self._optimiser.step()
                self._mean.update(self._network, step)
            self._progress = replace(self._progress, step=step + 1, seconds=time.monotonic() - began)
            done = step + 1 - first
            self._on_event(
                StepDone(
                    step=step + 1,
                    steps=config.steps,
                    losses=losses,
                    learning_rate=rate,
                    gradient_norm=float(norm),
                    seconds_left=(time.monotonic() - paced) / done * (config.steps - step - 1),
                )
            )
            cancelled = self._agreed(self._cancel.cancelled)
            if cancelled or self._is_due():
                self._settle(cancelled)
                cancelled = self._agreed(self._cancel.cancelled)
            if cancelled:
                self._cancel.cancel()
                self._cancel.raise_if_cancelled()
        return self._progress

    def _step(self, separating: nn.Module, feed: Iterable[Tensor]) -> tuple[dict[str, float], Tensor]:
        """Gradients of a step's batches; the losses are their means."""
        accumulate = self._config.optimiser.accumulate
        self._optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for index, stems in zip(range(accumulate), feed, strict=False):
            last = index == accumulate - 1
            waits = separating.no_sync() if isinstance(separating, DistributedDataParallel) and not last else None
            with waits or contextlib.nullcontext():
                half = self._config.precision is Precision.BFLOAT16
                with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
                    estimates = separating(stems.to(self._device, non_blocking=True))
                total, parts = weighted_loss(estimates, self._config.losses)
                (total / accumulate).backward()
            for name, value in {"total": total.detach(), **parts}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / accumulate
        return sums, nn.utils.clip_grad_norm_(self._network.parameters(), self._config.optimiser.clip_norm)

    def _settle(self, cancelled: bool) -> None:
        """Validates, unless the user waits for the end, and saves; the other processes wait meanwhile."""
        if self._rank == 0:
            self._progress = replace(self._progress, owed=cancelled and self._is_due())
            if self._validation and not cancelled:
                try:
                    self._validate()
                except Cancelled:
                    self._progress = replace(self._progress, owed=True)
            self._save(LAST, self._optimiser.state_dict())
        # What decides on the end is the same everywhere.
        self._progress = replace(self._progress, stale=self._shared(self._progress.stale))

    def _validate(self) -> None:
        found = validate(
            self._mean.network,
            self._validation,
            self._stems,
            max_seconds=self._config.validation.max_seconds,
            device=self._device,
            check=self._cancel.raise_if_cancelled,
        )
        so_far = self._progress.best_mean_db
        best = math.isfinite(found.mean) and (so_far is None or found.mean > so_far)  # NaN where nothing is heard
        self._progress = replace(
            self._progress,
            best_mean_db=found.mean if best else so_far,
            best_step=self._progress.step if best else self._progress.best_step,
            stale=0 if best else self._progress.stale + 1,
            sdr_db=found.sdr_db,
            songs=found.songs,
        )
        self._on_event(
            ValidationDone(step=self._progress.step, sdr_db=found.sdr_db, mean=found.mean, best=best, songs=found.songs)
        )
        if best:
            self._save(BEST, None)

    def _save(self, name: str, optimiser: dict[str, Any] | None) -> None:
        path = self._folder / name
        save_checkpoint(
            path,
            Checkpoint(
                config=self._config,
                options=self._options,
                progress=self._progress,
                origins=self._origins,
                commit=self._commit,
                network=self._network.state_dict(),
                mean=self._mean.network.state_dict(),
                optimiser=optimiser,
            ),
        )
        self._on_event(CheckpointSaved(step=self._progress.step, path=path))

    def _is_due(self) -> bool:
        """Whether a validation belongs to this step."""
        step = self._progress.step
        return step % self._config.validation.every_steps == 0 or step == self._config.steps

    def _is_done(self) -> bool:
        patience = self._config.validation.patience
        return patience > 0 and self._progress.stale >= patience

    def _agreed(self, flag: bool) -> bool:
        """Whether any process says so."""
        return bool(self._shared(int(flag), from_any=True))

    def _shared(self, number: int, *, from_any: bool = False) -> int:
        """The number of process 0 for all; or with ``from_any`` the largest."""
        if self._processes == 1:
            return number
        tensor = torch.tensor([number], device=self._device)
        if from_any:
            torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
        else:
            torch.distributed.broadcast(tensor, 0)
        return int(tensor.item())


def _device(name: str, rank: int) -> torch.device:
    known = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not known.get(name, False):
        raise ConfigError(
            f"device {name!r} is not here (here are: {', '.join(n for n, here in known.items() if here)})",
            hint="Name one of these with --device.",
            code="config.train",
        )
    return torch.device(name, rank % torch.cuda.device_count()) if name == "cuda" else torch.device(name)


def _keep_freed_memory() -> None:
    """Tells glibc to keep what is freed. Each step takes the same gigabyte again, and a fifth of it was page faults."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries don't have it
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_ARENA_MAX, 1)):
            mallopt(option, value)


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Of what a network draws in a step, so that no state of a generator has to be kept."""
    return int.from_bytes(hashlib.sha256(json.dumps([seed, step, rank]).encode()).digest()[:7], "big")


def _ignore(_: object) -> None:
    pass
