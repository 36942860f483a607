"""HTDemucs by ONNX Runtime: the exported graph between our own spectrogram and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from revithion_stems.audio import Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.engines import EngineOptions, Separator, WeightsPath, demucs_spectrogram
from revithion_stems.engines.onnx_norms import load_with_accurate_norms
from revithion_stems.errors import EngineError, ModelError, out_of_memory

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def load(spec: ModelSpec, paths: Sequence[WeightsPath], options: EngineOptions) -> list[Separator]:
    """A separator per file; see :data:`revithion_stems.engines.Factory`."""
    return [HTDemucsOnnx(spec, path, options) for _, path in paths]


class HTDemucsOnnx:
    """One exported HTDemucs network. Inputs: mix ``[1, 2, 343980]`` and its spectrogram ``[1, 4, 2048, 336]``."""

    remark: str | None = None
    settled = True

    def __init__(self, spec: ModelSpec, path: Path, options: EngineOptions) -> None:
        self._segment = spec.segment_frames
        self._stems = len(spec.stems)
        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = 3
        # Planning the memory of the whole graph keeps two generations of activations: 4.8 GiB at the peak against 3.4.
        session_options.enable_mem_pattern = False
        if options.threads is not None:
            session_options.intra_op_num_threads = options.threads
        provider = _PROVIDERS[options.device]
        if provider not in onnxruntime.get_available_providers():
            raise EngineError(
                f"this ONNX Runtime has no {provider}",
                hint="Install onnxruntime-gpu, or use --engine torch or --device cpu.",
                code="engine.device",
            )
        try:
            self._session = onnxruntime.InferenceSession(
                load_with_accurate_norms(path), session_options, providers=[provider]
            )
        except Exception as exc:  # the errors of ONNX Runtime and protobuf share no public base class
            raise ModelError(
                f"ONNX Runtime can't load {path.name}: {exc}",
                hint=f"Run `revithion-stems models pull {spec.name} --force`.",
                code="model.unreadable",
            ) from exc
        shapes = [list(node.shape) for node in self._session.get_inputs()]
        columns = -(-self._segment // demucs_spectrogram.HOP)
        expected = [[1, 2, self._segment], [1, 4, demucs_spectrogram.N_FFT // 2, columns]]
        if shapes != expected:
            raise ModelError(
                f"{path.name} has inputs {shapes}, expected {expected}",
                hint="Use the exported graph that the catalog names.",
                code="model.shape",
            )
        self._names = [node.name for node in self._session.get_inputs()]

    def begin(self) -> None:
        """See :meth:`revithion_stems.engines.Separator.begin`; nothing is learnt here."""

    def separate_segment(self, mix: Float32) -> Float32:
        """See :meth:`revithion_stems.engines.Separator.separate_segment`."""
        frames = mix.shape[1]
        padded = np.pad(mix, ((0, 0), (0, self._segment - frames)))
        inputs = dict(zip(self._names, (padded[None], demucs_spectrogram.forward(padded)[None]), strict=True))
        try:
            outputs: Any = self._session.run(None, inputs)
        except Exception as exc:  # the errors of ONNX Runtime and protobuf share no public base class
            if "Failed to allocate memory" in str(exc) or isinstance(exc, MemoryError):
                raise out_of_memory("in ONNX Runtime") from exc
            raise EngineError(
                f"ONNX Runtime failed: {exc}",
                hint="Use --engine torch.",
                code="engine.failed",
            ) from exc
        spectrogram, waveform = outputs  # [1, stems, 4, 2048, 336], [1, stems, 2, 343980]
        columns = spectrogram.shape[-1]
        by_signal = spectrogram.reshape(self._stems * 2, 2, demucs_spectrogram.N_FFT // 2, columns)
        stems = demucs_spectrogram.inverse(by_signal, self._segment).reshape(self._stems, 2, self._segment)
        stems += waveform[0]
        return stems[..., :frames]
