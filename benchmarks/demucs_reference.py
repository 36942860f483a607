"""Demucs 4.1 on the very weights that we use, through its own API: what benchmarks and tests compare with."""

from __future__ import annotations

from pathlib import Path

import demucs.api
import torch
from demucs.htdemucs import HTDemucs

from revithion_stems.catalog import ModelSpec
from revithion_stems.engines.demucs_weights import load_network
from revithion_stems.weights import ModelStore

SIGNATURE = "htdemucs_same"


def export_repository(store: ModelStore, spec: ModelSpec, folder: Path) -> Path:
    """Writes our weights of ``spec`` (one network) as a checkpoint in the form that demucs' ``--repo`` reads."""
    ((file, path),) = store.open_paths(spec)
    network = load_network(spec, file, path)
    assert isinstance(network, HTDemucs)
    args, kwargs = network._init_args_kwargs  # set by demucs on construction, and what its own checkpoints hold
    package = {"klass": HTDemucs, "args": args, "kwargs": kwargs, "state": network.state_dict()}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(package, folder / f"{SIGNATURE}.th")
    return folder


def open_separator(repository: Path, *, shifts: int = 0, overlap: float = 0.25) -> demucs.api.Separator:
    """Demucs' own separator on that checkpoint, on the CPU."""
    return demucs.api.Separator(SIGNATURE, repo=repository, device="cpu", shifts=shifts, overlap=overlap)
