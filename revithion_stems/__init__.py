"""revithion-stems: stems that sum back to the original exactly.

>>> import revithion_stems
>>> stems = revithion_stems.separate("song.wav", model="htdemucs")  # doctest: +SKIP
>>> stems["vocals"].samples.shape  # doctest: +SKIP
(2, 10584000)

Importing this package loads neither PyTorch nor ONNX Runtime; the first separation does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revithion_stems.api import separate, separate_to_files
    from revithion_stems.audio import AudioBuffer
    from revithion_stems.audio_files import read_audio
    from revithion_stems.catalog import Catalog, ModelSpec, load_catalog
    from revithion_stems.errors import (
        Cancelled,
        ConfigError,
        DownloadError,
        EngineError,
        InputError,
        ModelError,
        OutputError,
        RequestError,
        RevithionError,
    )
    from revithion_stems.events import CancelToken, JobEvent
    from revithion_stems.jobs import TRANSITIONS, Job, JobState
    from revithion_stems.manifest import Manifest
    from revithion_stems.output_format import BitDepth, Container, OutputFormat
    from revithion_stems.outputs import OutputOptions
    from revithion_stems.reports import SeparationReport
    from revithion_stems.requests import OtherMethod, SeparationRequest
    from revithion_stems.stems import ResidualPolicy, StemSet
    from revithion_stems.store import ContentStore
    from revithion_stems.version import __version__
    from revithion_stems.weights import ModelStore

_EXPORTS: dict[str, str] = {
    "OutputOptions": "outputs",
    "ContentStore": "store",
    "Manifest": "manifest",
    "SeparationReport": "reports",
    "separate": "api",
    "separate_to_files": "api",
    "AudioBuffer": "audio",
    "read_audio": "audio_files",
    "Catalog": "catalog",
    "ModelSpec": "catalog",
    "load_catalog": "catalog",
    "Cancelled": "errors",
    "ConfigError": "errors",
    "DownloadError": "errors",
    "EngineError": "errors",
    "InputError": "errors",
    "ModelError": "errors",
    "OutputError": "errors",
    "RequestError": "errors",
    "RevithionError": "errors",
    "CancelToken": "events",
    "JobEvent": "events",
    "TRANSITIONS": "jobs",
    "Job": "jobs",
    "JobState": "jobs",
    "OtherMethod": "requests",
    "SeparationRequest": "requests",
    "BitDepth": "output_format",
    "Container": "output_format",
    "OutputFormat": "output_format",
    "ResidualPolicy": "stems",
    "StemSet": "stems",
    "__version__": "version",
    "ModelStore": "weights",
}

__all__ = [
    "TRANSITIONS",
    "AudioBuffer",
    "BitDepth",
    "CancelToken",
    "Cancelled",
    "Catalog",
    "ConfigError",
    "Container",
    "ContentStore",
    "DownloadError",
    "EngineError",
    "InputError",
    "Job",
    "JobEvent",
    "JobState",
    "Manifest",
    "ModelError",
    "ModelSpec",
    "ModelStore",
    "OtherMethod",
    "OutputError",
    "OutputFormat",
    "OutputOptions",
    "RequestError",
    "ResidualPolicy",
    "RevithionError",
    "SeparationReport",
    "SeparationRequest",
    "StemSet",
    "__version__",
    "load_catalog",
    "read_audio",
    "separate",
    "separate_to_files",
]


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that importing the package stays cheap."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
