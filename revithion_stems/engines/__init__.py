"""Engines: what runs a network. One protocol, a static table of who can run what, and the choice between them."""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from revithion_stems.audio import Float32
from revithion_stems.catalog import Architecture, ModelSpec, WeightsFile, WeightsFormat
from revithion_stems.errors import EngineError, RequestError

WeightsPath = tuple[WeightsFile, Path]


class Separator(Protocol):
    """A loaded network on a device. Not thread-safe: one call at a time, from any thread."""

    def begin(self) -> None:
        """Forgets what the previous source taught it; called before each: a warm model answers like a new one."""
        ...

    @property
    def remark(self) -> str | None:
        """One line for people about how it computed, known after the first segments; None if all went as asked."""
        ...

    @property
    def settled(self) -> bool:
        """Whether it has learnt all that it learns from a source; until then no recorded output can stand in for it."""
        ...

    def separate_segment(self, mix: Float32) -> Float32:
        """Separates one segment.

        Args:
            mix: float32 ``[2, frames]`` at the model's rate, 1 ≤ frames ≤ the model's segment.

        Returns:
            float32 ``[stems, 2, frames]``, in the order of the model's stems.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How to run: ``device`` is ``cpu``, ``cuda`` or ``mps``; ``threads`` None leaves it to the library."""

    device: str = "cpu"
    threads: int | None = None
    precision: str = "fp32"


Factory = Callable[[ModelSpec, Sequence[WeightsPath], EngineOptions], list[Separator]]
"""Weights of the wanted networks → one separator per network, or one for all if the architecture joins them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEntry:
    """Who runs an architecture.

    Attributes:
        name: What ``--engine`` takes.
        factory: ``module:function`` of a :data:`Factory`.
        formats: Weights that it reads.
        devices: Where it runs.
        base_mib: Peak memory of the process without the network, measured on Linux.
        run_mib: What one run of a full segment adds, measured on a CPU.
        weights_factor: Copies of the weights that are in memory at the peak.
        precisions: What ``--precision`` may be.
        joins_networks: Whether one separator runs all networks of the model.
    """

    name: str
    factory: str
    formats: frozenset[WeightsFormat]
    devices: tuple[str, ...]
    base_mib: int
    run_mib: int
    weights_factor: float = 1.0
    precisions: tuple[str, ...] = ("fp32",)
    joins_networks: bool = False


_TORCH_FORMATS = frozenset({WeightsFormat.SAFETENSORS, WeightsFormat.TORCH})
_GPU = ("cpu", "cuda", "mps")

ENGINES: dict[Architecture, tuple[EngineEntry, ...]] = {
    Architecture.HTDEMUCS: (
        EngineEntry(
            name="torch",
            factory="revithion_stems.engines.demucs_torch:load",
            precisions=("fp32", "bf16"),
            formats=_TORCH_FORMATS | {WeightsFormat.ONNX},
            devices=_GPU,
            base_mib=300,
            run_mib=700,
            weights_factor=2.0,
        ),
        EngineEntry(
            name="onnx",
            factory="revithion_stems.engines.htdemucs_onnx:load",
            formats=frozenset({WeightsFormat.ONNX}),
            devices=("cpu", "cuda"),
            base_mib=200,
            run_mib=3300,
            weights_factor=2.0,
        ),
    ),
    Architecture.HDEMUCS: (
        EngineEntry(
            name="torch",
            factory="revithion_stems.engines.demucs_torch:load",
            precisions=("fp32", "bf16"),
            formats=_TORCH_FORMATS,
            devices=_GPU,
            base_mib=300,
            run_mib=2400,
            weights_factor=2.0,
        ),
    ),
    Architecture.SPLEETER: (
        EngineEntry(
            name="torch",
            factory="revithion_stems.engines.spleeter_torch:load",
            formats=frozenset({WeightsFormat.TORCH}),
            devices=_GPU,
            base_mib=300,
            run_mib=200,
            weights_factor=2.0,
            joins_networks=True,
        ),
    ),
    Architecture.TRAINED: (
        EngineEntry(
            name="torch",
            factory="revithion_stems.engines.trained_torch:load",
            formats=frozenset({WeightsFormat.SAFETENSORS}),
            devices=_GPU,
            base_mib=300,
            run_mib=1500,
            weights_factor=2.0,
        ),
    ),
    Architecture.CAUSAL_PREVIEW: (
        EngineEntry(
            name="onnx",
            factory="revithion_stems.engines.preview_onnx:load",
            formats=frozenset({WeightsFormat.ONNX}),
            devices=("cpu",),
            base_mib=180,
            run_mib=70,
            weights_factor=2.0,
        ),
    ),
    Architecture.DSP: (
        EngineEntry(
            name="numpy",
            factory="revithion_stems.engines.dsp:load",
            formats=frozenset(),
            devices=("cpu",),
            base_mib=180,
            run_mib=130,
            joins_networks=True,
        ),
    ),
}
"""Architecture → the engines that run it, the first that fits is chosen. The only place where classes are chosen.

PyTorch comes before ONNX Runtime because it needed less time and half the memory wherever both were measured
(``benchmarks/offline.py``)."""


DEMUCS_FAMILY = frozenset({Architecture.HTDEMUCS, Architecture.HDEMUCS})
"""Architectures that get what ``demucs.apply`` gives them: a mix of mean 0 and deviation 1, and a short last segment in
the middle of its frame. The others want the level as it is, and silence only after the end."""


def choose_engine(
    spec: ModelSpec, *, engine: str, device: str, precision: str, present: Sequence[frozenset[WeightsFormat]]
) -> tuple[EngineEntry, str]:
    """Picks engine and device for a model.

    Args:
        spec: The model.
        engine: ``auto`` or an engine's name.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``fp32`` or ``bf16``.
        present: Per wanted network, the formats that are on this machine.

    Returns:
        The entry and the resolved device.

    Raises:
        RequestError: The engine does not run this architecture, or not on that device or in that precision.
        EngineError: The device is not there, or no weights that the engine reads are present.
    """
    entries = [entry for entry in ENGINES[spec.architecture] if engine in ("auto", entry.name)]
    if not entries:
        names = ", ".join(entry.name for entry in ENGINES[spec.architecture])
        raise RequestError(
            f"engine {engine!r} does not run {spec.name} (it runs on: {names})",
            hint="Use --engine auto, or another model.",
            code="request.engine",
        )
    entries = [entry for entry in entries if precision in entry.precisions]
    if not entries:
        raise RequestError(
            f"{spec.name} with engine {engine!r} does not compute in {precision}",
            hint="Use --engine auto, or leave --precision out.",
            code="request.precision",
        )
    wanted = available_device() if device == "auto" else device
    if device not in ("auto", "cpu") and not _torch_device_works(device):
        raise EngineError(
            f"device {device!r} is not available on this machine",
            hint="Use --device auto or cpu; `revithion-stems doctor` shows what was found.",
            code="engine.device",
        )
    usable = [e for e in entries if all(e.formats & formats for formats in present)]
    if not usable:
        reads = ", ".join(sorted(f.value for e in entries for f in e.formats))
        raise EngineError(
            f"no weights of {spec.name} that engine {engine!r} reads are here (it reads: {reads})",
            hint=f"Run `revithion-stems models pull {spec.name}`, or use --engine auto.",
            code="engine.weights",
        )
    on_device = [e for e in usable if wanted in e.devices]
    if not on_device and device != "auto":
        raise RequestError(
            f"{spec.name} with engine {engine!r} does not run on {device!r}",
            hint="Use --device auto or cpu.",
            code="request.device",
        )
    if not on_device:
        return usable[0], "cpu"
    return on_device[0], wanted


def load_separators(
    entry: EngineEntry, spec: ModelSpec, paths: Sequence[WeightsPath], options: EngineOptions
) -> list[Separator]:
    """Loads the networks whose verified weights are ``paths``.

    Raises:
        EngineError: The library is not installed or failed on these weights.
        ModelError: The file does not hold what the catalog promises.
    """
    module_name, _, attribute = entry.factory.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as exc:
        raise EngineError(
            f"engine {entry.name!r} can't be loaded: {exc}",
            hint="Install revithion-stems again with all its dependencies, or use another --engine.",
            code="engine.missing",
        ) from exc
    factory: Factory = getattr(module, attribute)
    return factory(spec, paths, options)


def available_device() -> str:
    """The best device there is, ``cpu``, ``cuda`` or ``mps``; without importing torch where no GPU can be."""
    if sys.platform == "darwin":
        return "mps" if platform.machine() == "arm64" and _torch_device_works("mps") else "cpu"
    may_have_nvidia = shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()
    return "cuda" if may_have_nvidia and _torch_device_works("cuda") else "cpu"


def _torch_device_works(device: str) -> bool:
    import torch

    return {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}[device]()
