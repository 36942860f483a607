"""What a training run leaves on disk: enough to go on bit for bit, and to export from."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from revithion_stems.errors import ModelError
from revithion_stems.output_errors import output_errors
from revithion_stems.training.datasets.multitrack import Origin
from revithion_stems.training.train_config import TrainConfig, config_as_plain, config_from_plain
from revithion_stems.weight_files import appearing

LAST: Final = "last.pt"
"""The newest state."""

BEST: Final = "best.pt"
"""The state that did best in validation; without that of the optimiser."""

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: Steps done.
        seconds: Of work, validation included.
        best_mean_db: Best mean SDR of a validation; None before the first.
        best_step: When that was.
        stale: Validations since.
        owed: Whether the validation that belongs to ``step`` was left out, because the user waited for the end.
        sdr_db: Stem → SDR of the validation at ``step``, or of the last one before.
        songs: Song → stem → SDR of it.
    """

    step: int = 0
    seconds: float = 0.0
    best_mean_db: float | None = None
    best_step: int = 0
    stale: int = 0
    owed: bool = False
    sdr_db: dict[str, float] = field(default_factory=dict[str, float])
    songs: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A run's state.

    Attributes:
        config: Of the run.
        options: Of the architecture, complete: as :func:`revithion_stems.models.architectures.options_of` gives them.
        progress: How far it has come.
        origins: Of the material that it learns from, each once.
        commit: Of the program that trained it, or None: as :func:`source_commit` says.
        network: Weights.
        mean: Their running mean: what is validated and exported.
        optimiser: State, or None in a checkpoint to export from.
    """

    config: TrainConfig
    options: dict[str, Any]
    progress: Progress
    origins: tuple[Origin, ...]
    commit: str | None
    network: dict[str, Any]
    mean: dict[str, Any]
    optimiser: dict[str, Any] | None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint; a reader sees the old one or the new one, whole.

    Raises:
        OutputError: It can't be written.
    """
    about = {
        "config": config_as_plain(checkpoint.config),
        "options": checkpoint.options,
        "progress": asdict(checkpoint.progress),
        "commit": checkpoint.commit,
        "origins": [asdict(origin) for origin in checkpoint.origins],
    }
    held = {
        "format": _FORMAT,
        "about": json.dumps(about),
        "network": checkpoint.network,
        "mean": checkpoint.mean,
        "optimiser": checkpoint.optimiser,
    }
    # Twice: PyTorch does not say why it can't write, and whether the disk is full shows only while the part is there.
    with output_errors(path), appearing(path) as partial, output_errors(path), partial.open("wb") as file:
        torch.save(held, file)
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint, to the CPU. No code in it is run.

    Raises:
        ModelError: It isn't there, is damaged, or is of another kind.
    """
    try:
        held: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if held["format"] != _FORMAT:
            raise ValueError(f"its format is {held['format']}, this version reads {_FORMAT}")
        about = json.loads(held["about"])
        return Checkpoint(
            config=config_from_plain(about["config"]),
            options=about["options"],
            progress=msgspec.convert(about["progress"], Progress),
            origins=tuple(msgspec.convert(about["origins"], list[Origin])),
            commit=about.get("commit"),
            network=held["network"],
            mean=held["mean"],
            optimiser=held["optimiser"],
        )
    except Exception as exc:  # torch, zipfile and pickle share no base class for what damaged files do to them
        # Of what pickle says of other files, nothing helps anybody.
        reason = str(exc) if isinstance(exc, OSError | ValueError) else "damaged, or something else"
        raise ModelError(
            f"{path} is no checkpoint of a training run: {reason}",
            hint="Name the folder of a run, or remove the file and begin again.",
            code="model.unreadable",
        ) from exc
