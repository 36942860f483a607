"""What a result depends on, as one digest: the same key means the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence

from revithion_stems.catalog import ModelSpec
from revithion_stems.output_format import OutputFormat
from revithion_stems.requests import SeparationRequest, StemPlan
from revithion_stems.version import __version__

_LIBRARIES = {
    "torch": ("torch", "numpy", "soxr"),
    "onnx": ("onnxruntime", "numpy", "soxr"),
    "numpy": ("numpy", "scipy", "soxr"),
}
"""Engine → the libraries whose arithmetic is in its stems."""

READERS = ("soundfile", "av")
"""The libraries that decode and encode."""


def library_versions(names: Sequence[str]) -> dict[str, str]:
    """Library → installed version, without importing it."""
    return {name: importlib.metadata.version(name) for name in names}


def engine_versions(engine: str) -> dict[str, str]:
    """This program and the libraries that an engine computes with → version."""
    return {"revithion-stems": __version__, **library_versions(_LIBRARIES[engine])}


def result_key(
    *,
    audio_sha256: str,
    tags_sha256: str,
    spec: ModelSpec,
    weights: Sequence[str],
    plan: StemPlan,
    request: SeparationRequest,
    engine: str,
    device: str,
    output_format: OutputFormat,
) -> str:
    """The digest of all that decides on the bytes of the stems.

    Args:
        audio_sha256: Of the decoded source, with its rate and channels.
        tags_sha256: Of the source's tags, which the stems carry on.
        spec: The model.
        weights: SHA-256 of the weights of the networks that run.
        plan: What is delivered; it stands for the request's choice of stems.
        request: Overlap, shifts, seed, precision and threads are read from it.
        engine: Name of the engine.
        device: Where it runs.
        output_format: What the stems are written as.

    Returns:
        64 hex digits.
    """
    ingredients = {
        "audio": audio_sha256,
        "tags": tags_sha256,
        "model": [spec.name, *weights],
        "plan": {**dataclasses.asdict(plan), "matrix": plan.matrix.tolist()},
        "parameters": {name: getattr(request, name) for name in ("overlap", "shifts", "seed", "precision", "threads")},
        "engine": [engine, device],
        "format": [output_format.container.value, output_format.bit_depth and output_format.bit_depth.value],
        "versions": {**engine_versions(engine), **library_versions(READERS)},
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
