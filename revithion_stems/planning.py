"""What a separation would do and cost, without doing it: work, time, memory and disk against what is free."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from revithion_stems.audio_files import read_info
from revithion_stems.catalog import ModelSpec
from revithion_stems.config import cache_dir, state_dir
from revithion_stems.engines import EngineEntry
from revithion_stems.errors import OutputError
from revithion_stems.events import CancelToken, EventStream
from revithion_stems.model_loading import choose_model, find_engine, wanted_networks
from revithion_stems.outputs import OutputOptions
from revithion_stems.requests import SeparationRequest, StemPlan, plan_stems
from revithion_stems.separator import network_runs
from revithion_stems.weights import ModelStore, Presence

_ROUGH_EFFICIENCY = 0.2
"""Share of the matrix-product rate that inference reaches on a CPU, where this machine has not been measured yet."""

_LEAST_S_PER_AUDIO_S = 0.03
"""Spectrograms and files cost something even where the network's arithmetic is next to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationPlan:
    """What would run. Sizes in bytes, times in seconds; None where it can't be known before a download.

    Attributes:
        source: The file.
        duration_s: Its length.
        sample_rate: Hz.
        channels: 1–8.
        model: Chosen model.
        presence: Whether its weights are here: ``present``, ``partial`` or ``absent``.
        licence: Terms of the weights.
        engine: Chosen engine.
        device: Where it would run.
        outputs: Stem → path.
        networks: Networks that would run.
        runs: Network runs in all.
        estimated_s: Expected time.
        estimate_basis: ``measured`` on this machine, or ``rough`` from the model's arithmetic.
        memory_bytes: Expected peak memory.
        memory_free_bytes: Available now.
        disk_bytes: Needed while working where the stems go: raw stems, if the format needs them, and finished files.
        disk_free_bytes: Free where the stems go.
        journal_bytes: Needed while working in the folder of the cache, to go on after an interruption.
        cache_free_bytes: Free there.
        download_bytes: To be pulled first.
    """

    source: str
    duration_s: float
    sample_rate: int
    channels: int
    model: str
    presence: str
    licence: str
    engine: str
    device: str
    outputs: dict[str, str]
    networks: int
    runs: int
    estimated_s: float
    estimate_basis: str
    memory_bytes: int
    memory_free_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    journal_bytes: int
    cache_free_bytes: int
    download_bytes: int | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What does not fit, one sentence each."""
        found: list[str] = []
        if self.memory_bytes > self.memory_free_bytes:
            found.append("more memory is needed than is free: close other programs or use a smaller model")
        if self.disk_bytes > self.disk_free_bytes:
            found.append("more disk is needed than is free where the stems go: choose another folder with -o")
        if self.journal_bytes > self.cache_free_bytes:
            found.append(
                "the journal has no room: once interrupted, the job would start over; REVITHION_CACHE_DIR names "
                "a folder on a larger disk"
            )
        return tuple(found)


def plan_separation(
    request: SeparationRequest,
    output: OutputOptions,
    *,
    store: ModelStore | None = None,
    events: EventStream | None = None,
) -> SeparationPlan:
    """Works out a plan. Reads the source's header only; downloads nothing.

    Raises:
        RevithionError: Whatever would stop the separation before it starts.
    """
    assert isinstance(request.source, Path)  # the command line only has paths
    store = store or ModelStore()
    info = read_info(request.source)
    output.format.check_source(channels=info.channels, sample_rate=info.sample_rate)
    spec = choose_model(request, store, events or EventStream("plan"), CancelToken(), may_pull=False)
    plan = plan_stems(request, spec)
    networks = wanted_networks(spec, plan)
    presence = store.presence(spec)
    entry, device = find_engine(request, spec, networks, store)
    paths = output.paths(request.source, plan.all_names, spec.name).stems
    separators = 1 if entry.joins_networks else len(networks)
    runs = separators * network_runs(
        plan,
        request,
        frames=info.frames,
        sample_rate=info.sample_rate,
        channels=info.channels,
        spec=spec,
    )
    per_run_s, basis = estimate_run_s(spec, entry.name, device, request.threads)
    scale = _segment_scale(plan, spec, info.duration_s)
    per_run_s *= scale
    raw_bytes = info.frames * info.channels * 4 * len(paths)
    return SeparationPlan(
        source=str(request.source),
        duration_s=info.duration_s,
        sample_rate=info.sample_rate,
        channels=info.channels,
        model=spec.name,
        presence=presence.value,
        licence=spec.licence.weights,
        engine=entry.name,
        device=device,
        outputs={name: str(path) for name, path in paths.items()},
        networks=separators,
        runs=runs,
        estimated_s=runs * per_run_s,
        estimate_basis=basis,
        memory_bytes=memory_bytes(entry, spec, separators, scale),
        memory_free_bytes=psutil.virtual_memory().available,
        disk_bytes=(2 if output.format.clips else 1) * raw_bytes,
        disk_free_bytes=_disk_free(output.folder),
        journal_bytes=_journal_bytes(runs, plan, [spec.networks[index].stem_weights for index in networks], separators),
        cache_free_bytes=_disk_free(cache_dir()),
        download_bytes=0 if presence is Presence.PRESENT else spec.size,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedMemory:
    """What a separation would need.

    Attributes:
        peak_bytes: Expected peak memory of the process that runs it, in all.
        device: Where the network would run.
        segment_s: Length of its network runs, in seconds.
    """

    peak_bytes: int
    device: str
    segment_s: float


def expected_memory(request: SeparationRequest, *, store: ModelStore | None = None) -> ExpectedMemory:
    """Works out the memory that a separation needs. Reads the source's header only; downloads nothing.

    Raises:
        RevithionError: The source can't be read, or the model, engine, device or segment can't be what is asked for.
    """
    assert isinstance(request.source, Path)  # who has the audio in memory knows whether it fits
    store = store or ModelStore()
    info = read_info(request.source)
    spec = choose_model(request, store, EventStream("plan"), CancelToken(), may_pull=False)
    plan = plan_stems(request, spec)
    networks = wanted_networks(spec, plan)
    entry, device = find_engine(request, spec, networks, store)
    separators = 1 if entry.joins_networks else len(networks)
    return ExpectedMemory(
        peak_bytes=memory_bytes(entry, spec, separators, _segment_scale(plan, spec, info.duration_s)),
        device=device,
        segment_s=plan.segment_frames / spec.sample_rate,
    )


def memory_bytes(entry: EngineEntry, spec: ModelSpec, separators: int, segment_scale: float = 1.0) -> int:
    """Expected peak memory of the process: libraries, weights, and what one run of one network needs.

    Args:
        entry: Engine.
        spec: Model.
        separators: Networks that run.
        segment_scale: Length of what a network gets, in segments of the model's own length.
    """
    weights = spec.parameters * 4 * separators // max(1, len(spec.networks))
    if entry.joins_networks:
        weights = spec.parameters * 4
    run_mib = entry.run_mib * segment_scale
    return round((entry.base_mib + run_mib) * 2**20 + weights * entry.weights_factor)


def estimate_run_s(spec: ModelSpec, engine: str, device: str, threads: int | None) -> tuple[float, str]:
    """Seconds per network run and how they are known: ``measured`` or ``rough``."""
    measured = _load_rates().get(_rate_key(spec.name, engine, device, threads))
    if isinstance(measured, int | float) and measured > 0:
        return float(measured), "measured"
    floor = _LEAST_S_PER_AUDIO_S * float(spec.segment_s)
    return max(floor, spec.gflop_per_segment / (_matrix_gflops() * _ROUGH_EFFICIENCY)), "rough"


def record_run_s(spec_name: str, engine: str, device: str, threads: int | None, run_s: float) -> None:
    """Remembers how long a network run took on this machine, if one was needed (``run_s`` is not 0).

    A state folder that can't be written is no error.
    """
    if run_s <= 0:
        return
    rates = _load_rates()
    key = _rate_key(spec_name, engine, device, threads)
    previous = rates.get(key)
    rates[key] = run_s if not isinstance(previous, int | float) else 0.5 * (previous + run_s)
    path = _rates_path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(rates, indent=1), encoding="utf-8")
        part.replace(path)


def _segment_scale(plan: StemPlan, spec: ModelSpec, duration_s: float) -> float:
    """What a network gets in one run, in segments of the model's own length.

    A fixed one is filled up with zeros, any other is not longer than the source.
    """
    if spec.segment_fixed:
        return 1.0
    return min(plan.segment_frames, math.ceil(duration_s * spec.sample_rate)) / spec.segment_frames


def _journal_bytes(runs: int, plan: StemPlan, weights: Sequence[Sequence[float]], separators: int) -> int:
    """What all network runs give: of networks that are averaged, only the stems that they have a weight for."""
    stems = len(plan.model_stems)
    if separators > 1:
        stems = sum(1 for row in weights for weight in row if weight) // separators
    return runs * stems * 2 * plan.segment_frames * 4


def _rates_path() -> Path:
    return state_dir() / "rates.json"


def _load_rates() -> dict[str, Any]:
    try:
        data = json.loads(_rates_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _rate_key(model: str, engine: str, device: str, threads: int | None) -> str:
    return f"{model}/{engine}/{device}/{threads or 'auto'}"


def _matrix_gflops() -> float:
    """This machine's float32 matrix product, in 10^9 operations a second; takes some tens of milliseconds."""
    import numpy as np

    size = 768
    matrix = np.full((size, size), 0.5, np.float32)
    np.matmul(matrix, matrix)  # the first call starts the library's threads
    started = time.perf_counter()
    repeats = 5
    for _ in range(repeats):
        np.matmul(matrix, matrix)
    return repeats * 2 * size**3 / (time.perf_counter() - started) / 1e9


def _disk_free(folder: Path) -> int:
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError as exc:
        raise OutputError(
            f"{folder} can't be written to: {exc.strerror or exc}",
            hint="Choose another folder with -o.",
        ) from exc
