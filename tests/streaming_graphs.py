"""Small causal networks as real ONNX graphs, for tests and benchmarks; each with what it computes, written plainly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STEMS = ("drums", "bass", "vocals", "other")
Shape = Sequence[int]


def save_graph(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, Any],
    metadata: Mapping[str, object],
) -> Path:
    """Writes a graph of float32 inputs and outputs, with constants of any type."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def waveform_metadata(hop: int, *, latency: int = 0, sample_rate: int = 44_100) -> dict[str, object]:
    """What a waveform graph of ours says of itself."""
    return {
        "revithion.kind": "waveform",
        "revithion.stems": ",".join(STEMS),
        "revithion.sample_rate": sample_rate,
        "revithion.hop": hop,
        "revithion.latency": latency,
    }


def convolution(
    path: Path,
    kernel: np.ndarray,
    hop: int,
    *,
    metadata: Mapping[str, object],
    names: tuple[str, str] = ("past_in", "past_out"),
) -> Path:
    """A causal filter per stem and channel; its state is the past that the kernel reaches.

    Args:
        path: To write.
        kernel: float32 ``[stems, taps]``; tap 0 meets the oldest frame.
        hop: Frames of a call.
        metadata: What the graph says of itself.
        names: Of the state, as input and as output.
    """
    stems, taps = kernel.shape
    past = taps - 1
    before, after = names
    nodes = [
        helper.make_node("Concat", [before, "audio"], ["heard"], axis=2),  # [1, 2, past + hop]
        helper.make_node("Reshape", ["heard", "channels_as_batch"], ["batch"]),  # [2, 1, past + hop]
        helper.make_node("Conv", ["batch", "kernel"], ["parts"]),  # [2, stems, hop]
        helper.make_node("Transpose", ["parts"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("Unsqueeze", ["turned", "first"], ["separated"]),
        helper.make_node("Slice", ["heard", "newest", "end", "last_axis"], [after]),
    ]
    return save_graph(
        path,
        nodes,
        {"audio": (1, 2, hop), before: (1, 2, past)},
        {"separated": (1, stems, 2, hop), after: (1, 2, past)},
        {
            "kernel": kernel.astype(np.float32)[:, None, :],
            "channels_as_batch": np.array([2, 1, past + hop]),
            "first": np.array([0]),
            "newest": np.array([-past]),
            "end": np.array([2**31]),
            "last_axis": np.array([2]),
        },
        metadata,
    )


def masking_gru(path: Path, *, bins: int, hidden: int, hop: int, synthesis: int, seed: int = 0) -> Path:
    """Magnitudes of a column → GRU → a softmax over four stems, which shares out the column.

    Parameters: about 3 · hidden · (2 · bins + hidden) and 8 · bins · hidden.
    """
    random = np.random.default_rng(seed)
    stems = len(STEMS)

    def weights(*shape: int) -> Any:
        return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    nodes = [
        helper.make_node("ReduceL2", ["column"], ["magnitude"], axes=[3], keepdims=0),  # [1, 2, bins]
        helper.make_node("Reshape", ["magnitude", "as_sequence"], ["features"]),  # [time 1, batch 1, 2 · bins]
        helper.make_node("GRU", ["features", "w", "r", "", "", "memory"], ["", "next_memory"], hidden_size=hidden),
        helper.make_node("Reshape", ["next_memory", "as_row"], ["row"]),  # [1, hidden]
        helper.make_node("MatMul", ["row", "to_masks"], ["flat"]),
        helper.make_node("Reshape", ["flat", "as_masks"], ["logits"]),  # [1, stems, 2, bins, 1]
        helper.make_node("Softmax", ["logits"], ["masks"], axis=1),
        helper.make_node("Unsqueeze", ["column", "second"], ["mix"]),  # [1, 1, 2, bins, 2]
        helper.make_node("Mul", ["mix", "masks"], ["spectra"]),
    ]
    return save_graph(
        path,
        nodes,
        {"column": (1, 2, bins, 2), "memory": (1, 1, hidden)},
        {"spectra": (1, stems, 2, bins, 2), "next_memory": (1, 1, hidden)},
        {
            "w": weights(1, 3 * hidden, 2 * bins),
            "r": weights(1, 3 * hidden, hidden),
            "to_masks": weights(hidden, stems * 2 * bins),
            "as_sequence": np.array([1, 1, 2 * bins]),
            "as_row": np.array([1, hidden]),
            "as_masks": np.array([1, stems, 2, bins, 1]),
            "second": np.array([1]),
        },
        {
            "revithion.kind": "spectrum",
            "revithion.stems": ",".join(STEMS),
            "revithion.sample_rate": 44_100,
            "revithion.hop": hop,
            "revithion.analysis": 2 * (bins - 1),
            "revithion.synthesis": synthesis,
        },
    )
