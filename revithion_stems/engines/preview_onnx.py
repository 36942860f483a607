"""The causal preview network over files: the graph that plays live, hop by hop, between transforms of whole stretches.

Without the delay: the analysis of hop t is the same as live, and the frames that it completes are written where they
came from, so that output frame n is input frame n.

A segment begins with an empty memory, as a session does; after a second or two the stems are those of `live`. The
triangle of the overlap-add gives these beginnings little weight, and segments that depend on nothing before them can be
resumed, cached and cut anywhere with the same result. 12 seconds repeat that warm-up rarely enough and keep memory and
the wait for a cancellation short.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from revithion_stems.audio import Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.engines import EngineOptions, Separator, WeightsPath
from revithion_stems.errors import EngineError, ModelError
from revithion_stems.models.stft_design import StftDesign

Complex64 = npt.NDArray[np.complex64]

_COLUMNS: Final = 128
"""Columns that are transformed at once: enough for the transforms, and a bound for the memory."""

_NEXT: Final = "next_"
_KEYS: Final = ("revithion.analysis", "revithion.synthesis", "revithion.hop")


def load(spec: ModelSpec, paths: Sequence[WeightsPath], options: EngineOptions) -> list[Separator]:
    """A separator per file; see :data:`revithion_stems.engines.Factory`."""
    return [PreviewOnnx(spec, path) for _, path in paths]


class PreviewOnnx:
    """A graph of :mod:`revithion_stems.models.causal_preview_onnx`, or any other that takes a column, over segments.

    It computes on one thread: a step is so short that more would wait for each other longer than they work.

    Args:
        spec: The model that the graph must be.
        path: Of the graph.

    Raises:
        ModelError: ONNX Runtime can't load it, or it is another graph.
    """

    remark: str | None = None
    settled = True

    def __init__(self, spec: ModelSpec, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # the errors of ONNX Runtime and protobuf share no public base class
            raise ModelError(
                f"ONNX Runtime can't load {path.name}: {exc}",
                hint="Install revithion-stems again, or use another --model.",
                code="model.unreadable",
            ) from exc
        self._design = _design(spec, path, self._session.get_modelmeta().custom_metadata_map)
        self._stems = len(spec.stems)
        self._column, self._memory = _inputs(path, self._session, self._design)
        self._outputs = [_stems_output(path, self._session, self._design, self._stems)]
        self._outputs += [_NEXT + name for name in self._memory]

    def begin(self) -> None:
        """See :meth:`revithion_stems.engines.Separator.begin`; nothing is learnt here."""

    def separate_segment(self, mix: Float32) -> Float32:
        """See :meth:`revithion_stems.engines.Separator.separate_segment`."""
        n, m, hop = self._design.analysis_frames, self._design.synthesis_frames, self._design.hop_frames
        frames = mix.shape[1]
        columns = (frames - 1 + m) // hop  # the last one begins with or before the last frame
        padded = np.pad(mix, ((0, 0), (n - hop, columns * hop - frames)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, n, axis=1)[:, ::hop]  # [2, T, N], a view
        # Hop j of the sum begins m − hop frames before frame j·hop of the mix.
        total = np.zeros((self._stems, 2, columns + m // hop - 1, hop), np.float32)
        memory = {name: np.zeros(shape, np.float32) for name, shape in self._memory.items()}
        for first in range(0, columns, _COLUMNS):
            spectra = np.fft.rfft(seen[:, first : first + _COLUMNS] * self._design.analysis)  # [2, t, F]
            count = spectra.shape[1]
            stems = np.empty((self._stems, 2, count, self._design.bins), np.complex64)
            for index in range(count):
                stems[:, :, index] = self._step(np.ascontiguousarray(spectra[:, index], np.complex64), memory)
            parts = np.fft.irfft(stems, n)[..., -m:] * self._design.synthesis  # [S, 2, t, M]
            for index in range(m // hop):
                total[:, :, first + index : first + index + count] += parts[..., index * hop : (index + 1) * hop]
        return total.reshape(self._stems, 2, -1)[..., m - hop : m - hop + frames]

    def _step(self, column: Complex64, memory: dict[str, Float32]) -> Complex64:
        """One column ``[2, F]`` → ``[S, 2, F]``; ``memory`` goes on."""
        pairs = column.view(np.float32).reshape(1, *column.shape, 2)
        try:
            answer: Any = self._session.run(self._outputs, {self._column: pairs, **memory})
        except Exception as exc:  # as in __init__
            raise EngineError(f"ONNX Runtime failed: {exc}", hint="Use another --model.", code="engine.failed") from exc
        memory.update(zip(memory, answer[1:], strict=True))
        return answer[0].view(np.complex64)[0, ..., 0]


def _design(spec: ModelSpec, path: Path, said: dict[str, str]) -> StftDesign:
    """The windows that a graph's metadata ask for, once it is clear that the graph is the model."""
    wanted = {
        "revithion.kind": "spectrum",
        "revithion.stems": ",".join(spec.stems),
        "revithion.sample_rate": str(spec.sample_rate),
    }
    wrong = {key: said.get(key) for key, value in wanted.items() if said.get(key) != value}
    sizes = [int(text) if (text := said.get(key, "")).isdecimal() else 0 for key in _KEYS]
    if wrong or not all(sizes):
        raise _not_the_model(path, f"its metadata say {said}, expected {wanted} and sizes for {', '.join(_KEYS)}")
    analysis, synthesis, hop = sizes
    return StftDesign(analysis_frames=analysis, synthesis_frames=synthesis, hop_frames=hop)


def _inputs(path: Path, session: Any, design: StftDesign) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The name of the column's input, and the shape of each state."""
    outputs = {node.name for node in session.get_outputs()}
    shapes = {node.name: tuple(node.shape) for node in session.get_inputs()}
    memory = {name: shape for name, shape in shapes.items() if _NEXT + name in outputs}
    columns = [name for name in shapes if name not in memory]
    if [shapes[name] for name in columns] != [(1, 2, design.bins, 2)]:
        raise _not_the_model(path, f"its inputs are {shapes}, expected one of {[1, 2, design.bins, 2]} and states")
    return columns[0], memory


def _stems_output(path: Path, session: Any, design: StftDesign, stems: int) -> str:
    """The name of the output that is not a state."""
    shapes = {node.name: tuple(node.shape) for node in session.get_outputs() if not node.name.startswith(_NEXT)}
    if list(shapes.values()) != [(1, stems, 2, design.bins, 2)]:
        raise _not_the_model(path, f"its outputs are {shapes}, expected one of {[1, stems, 2, design.bins, 2]}")
    return next(iter(shapes))


def _not_the_model(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path.name} is not the graph that the catalog names: {reason}",
        hint="Install revithion-stems again.",
        code="model.shape",
    )
