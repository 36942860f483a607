"""What is asked for: one separation's parameters, checked when they are put together."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from revithion_stems.audio import AudioBuffer, Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.errors import RequestError
from revithion_stems.network_files import is_network_file
from revithion_stems.overlap_add import stride_frames
from revithion_stems.stems import RESIDUAL, ResidualPolicy

ENGINE_NAMES = ("auto", "torch", "onnx")
DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("fp32", "bf16")
MAX_OVERLAP = 0.95
MAX_SHIFTS = 20
MAX_SHIFT_S = 0.5

_Choice = TypeVar("_Choice", bound=enum.Enum)


class OtherMethod(enum.Enum):
    """How ``--two-stems S`` makes the stem that is not S."""

    MINUS = "minus"
    """The source less S: the sum is exact, and only the networks for S run."""
    ADD = "add"
    """The sum of the model's other stems: all networks run, and the residual stays out of it."""
    NONE = "none"
    """Not at all: only S is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationRequest:
    """One separation.

    Attributes:
        source: A file (text becomes a path) or audio in memory.
        model: A catalog name, ``auto``, or the path of a network file, which becomes absolute: the daemon and workers
            are in other folders.
        stems: Which of the model's stems; empty for all of them.
        two_stems: One stem and the rest, instead of ``stems``.
        other_method: How that rest is made; its value as text will do.
        residual: What happens to what no stem claims; its value as text will do.
        segment_s: Seconds per network run, at most the model's own; None for the model's own.
        overlap: Fraction of a segment, 0–0.95.
        shifts: Random time shifts to average over, 0–20; 0 runs once, unshifted.
        seed: Of the random shifts, 0–2^32−1.
        engine: ``auto``, ``torch`` or ``onnx``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``fp32``, or ``bf16`` where its measured error allows.
        threads: CPU threads for the network, 1–1024; None leaves it to the engine.

    Raises:
        RequestError: A value is out of its range or contradicts another.
    """

    source: Path | str | AudioBuffer
    model: str = "auto"
    stems: tuple[str, ...] = ()
    two_stems: str | None = None
    other_method: OtherMethod = OtherMethod.MINUS
    residual: ResidualPolicy = ResidualPolicy.FOLD
    segment_s: float | None = None
    overlap: float = 0.25
    shifts: int = 0
    seed: int = 0
    engine: str = "auto"
    device: str = "auto"
    precision: str = "fp32"
    threads: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.source, str):
            object.__setattr__(self, "source", Path(self.source))
        if is_network_file(self.model):
            object.__setattr__(self, "model", str(Path(self.model).expanduser().absolute()))
        object.__setattr__(self, "other_method", _member("other_method", self.other_method, OtherMethod))
        object.__setattr__(self, "residual", _member("residual", self.residual, ResidualPolicy))
        if isinstance(self.stems, str):
            raise RequestError(
                f"stems is the text {self.stems!r}, expected a tuple of names",
                hint=f"Write stems=({self.stems!r},).",
                code="request.stems",
            )
        object.__setattr__(self, "stems", tuple(self.stems))
        _one_of("engine", self.engine, ENGINE_NAMES)
        _one_of("device", self.device, DEVICE_NAMES)
        _one_of("precision", self.precision, PRECISIONS)
        _in_range("overlap", self.overlap, 0.0, MAX_OVERLAP, "it is a fraction of a segment, not seconds")
        _in_range("shifts", self.shifts, 0, MAX_SHIFTS, "each shift costs a whole run")
        _in_range("seed", self.seed, 0, 2**32 - 1, "any whole number in it will do")
        if self.segment_s is not None:
            _in_range("segment", self.segment_s, 0.1, 600.0, "it is in seconds, and at most the model's own")
        if self.threads is not None:
            _in_range("threads", self.threads, 1, 1024, "leave it out to use all cores")
        if self.two_stems is not None and self.stems:
            raise RequestError(
                "stems and two_stems exclude each other",
                hint="Use --two-stems vocals for vocals and the rest, --stems vocals,drums to pick some.",
                code="request.stems",
            )
        if len(set(self.stems)) != len(self.stems):
            raise RequestError(
                f"stems names one twice: {', '.join(self.stems)}", hint="Name each once.", code="request.stems"
            )

    @property
    def source_name(self) -> str:
        """The source as text for people."""
        return "<buffer>" if isinstance(self.source, AudioBuffer) else str(self.source)

    @property
    def wanted_stems(self) -> tuple[str, ...]:
        """The stems that were asked for by name; empty means all."""
        return (self.two_stems,) if self.two_stems is not None else self.stems


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StemPlan:
    """How a model's stems become the stems that are delivered.

    Attributes:
        model_stems: Stems that the networks must compute, in the model's order.
        names: Stems that are delivered, without the residual.
        matrix: float32 ``[names, model_stems]``: which computed stems add up to each delivered one.
        fold: Index in ``names`` of the stem that closes the sum, or None.
        with_residual: Whether the residual is delivered as a stem of its own.
        segment_frames: Frames per network run at the model's rate.
    """

    model_stems: tuple[str, ...]
    names: tuple[str, ...]
    matrix: Float32
    fold: int | None
    with_residual: bool
    segment_frames: int

    @property
    def all_names(self) -> tuple[str, ...]:
        """Delivered stems, the residual last if it is one of them."""
        return (*self.names, RESIDUAL) if self.with_residual else self.names

    @property
    def sums_to_source(self) -> bool:
        """Whether the delivered stems add up to the source."""
        return self.fold is not None or self.with_residual


def plan_stems(request: SeparationRequest, spec: ModelSpec) -> StemPlan:
    """What ``request`` means for the model ``spec``.

    Raises:
        RequestError: The model has no such stem, or its segment is shorter than the one asked for.
    """
    unknown = [stem for stem in request.wanted_stems if stem not in spec.stems]
    if unknown:
        raise RequestError(
            f"{spec.name} has no stem {unknown[0]!r} (it has: {', '.join(spec.stems)})",
            hint="Ask for one of those, or use a model that has it: `revithion-stems models list`.",
            code="request.stems",
        )
    segment_frames = spec.segment_frames
    if request.segment_s is not None:
        segment_frames = int(request.segment_s * spec.sample_rate)
        if spec.segment_fixed and segment_frames > spec.segment_frames:
            raise RequestError(
                f"segment {request.segment_s} s is longer than {spec.name} allows ({float(spec.segment_s):.2f} s)",
                hint="Leave --segment out, or make it shorter.",
                code="request.segment",
            )
    stride_frames(segment_frames, request.overlap)
    with_residual = request.residual is not ResidualPolicy.FOLD
    folds = request.residual is not ResidualPolicy.STEM

    def plan(computed: Sequence[str], names: Sequence[str], matrix: Float32, fold: int | None) -> StemPlan:
        return StemPlan(
            model_stems=tuple(computed),
            names=tuple(names),
            matrix=matrix,
            fold=fold if folds else None,
            with_residual=with_residual,
            segment_frames=segment_frames,
        )

    target = request.two_stems
    if target is None:
        chosen = [stem for stem in spec.stems if stem in (request.stems or spec.stems)]
        complete = len(chosen) == len(spec.stems)
        identity = np.eye(len(chosen), dtype=np.float32)
        return plan(chosen, chosen, identity, chosen.index(spec.residual_stem) if complete else None)
    names = (target, f"no_{target}")
    match request.other_method:
        case OtherMethod.NONE:
            return plan([target], [target], np.eye(1, dtype=np.float32), None)
        case OtherMethod.MINUS:
            return plan([target], names, np.array([[1], [0]], np.float32), 1)
        case OtherMethod.ADD:
            is_target = np.array([stem == target for stem in spec.stems], np.float32)
            return plan(spec.stems, names, np.stack([is_target, 1 - is_target]), None)


def _member(field: str, value: Any, kind: type[_Choice]) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        _one_of(field, str(value), tuple(str(member.value) for member in kind))
        raise


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise RequestError(
            f"{field} {value!r} is not one of {', '.join(allowed)}",
            hint="Correct it, or leave it out for the default.",
            code=f"request.{field}",
        )


def _in_range(field: str, value: float, lowest: float, highest: float, why: str) -> None:
    whole = isinstance(lowest, int)
    if not lowest <= value <= highest or (whole and value != int(value)):  # NaN fails the first
        raise RequestError(
            f"{field} {value} is not {'a whole number ' if whole else ''}from {lowest:g} to {highest:g}",
            hint=f"Choose a value in that range; {why}.",
            code=f"request.{field}",
        )
