"""The causal preview network as an ONNX graph that computes one column and gives back what it remembers.

Built node by node rather than traced: the shapes of one column are all known, most of the axes that a sequence needs
fall away, and the layouts are those in which ONNX Runtime computes fastest on one thread. `realtime/MODELS.md` says
what a graph must be like to play live; :mod:`revithion_stems.engines.preview_onnx` runs the same one over files.

Letters of shapes as in :mod:`revithion_stems.models.causal_preview`; time and batch, both 1, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from revithion_stems.models.causal_preview import FEATURES, BandDecoder, BandEncoder, Block, CausalPreview

OPSET: Final = 20
"""The first with Gelu."""

IR_VERSION: Final = 9
"""The one of that opset."""

HALF_FROM: Final = 1024
"""Weights: arrays with fewer numbers stay float32 in a half graph; biases and gains are worth more than their bytes."""


def step_graph(
    network: CausalPreview, *, metadata: Mapping[str, str] | None = None, half: bool = False
) -> onnx.ModelProto:
    """The network for one column: spectra of the mix in, those of the stems out, and its memory in and out.

    Input ``column`` float32 ``[1, 2, F, 2]`` (channel, bin, real and imaginary part) and one state ``memory_i`` per
    block, float32 ``[K, C]``, zero at first. Output ``stems`` float32 ``[1, S, 2, F, 2]``, the mix times masks, and
    ``next_memory_i``.

    Args:
        network: Its weights are copied.
        metadata: What else the graph shall say of itself (licence, seed, …). How it is run, in keys that begin with
            ``revithion.``, is added.
        half: Keep large weights as float16, which halves the file. They are made float32 when the graph is loaded.

    Returns:
        A graph that :func:`onnx.checker.check_model` accepts, without symbolic shapes; the same bytes for the same
        network.
    """
    config = network.config
    bins = config.analysis_frames // 2 + 1
    bands = sum(count for count, _ in config.bands)
    stems = len(config.stems)
    nodes = _Nodes(half=half)
    x = _encoder(nodes, network.encoder, _features(nodes, "column", bins))  # [K, C]
    states: list[str] = []
    for index, block in enumerate(network.blocks):
        x = _block(nodes, cast(Block, block), x, f"memory_{index}", f"next_memory_{index}")  # [K, C]
        states.append(f"memory_{index}")
    logits = _decoder(nodes, network.decoder, x)  # [S·2, F], a stem's channels side by side
    _shared_out(nodes, logits, "column", stems=stems, bins=bins)
    memory = [bands, config.channels]
    graph = helper.make_graph(
        nodes.nodes,
        "causal_preview",
        [_value("column", [1, 2, bins, 2]), *(_value(name, memory) for name in states)],
        [_value("stems", [1, stems, 2, bins, 2]), *(_value(f"next_{name}", memory) for name in states)],
        nodes.constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="revithion-stems",
    )
    contract = {
        "kind": "spectrum",
        "stems": ",".join(config.stems),
        "sample_rate": config.sample_rate,
        "hop": config.hop_frames,
        "analysis": config.analysis_frames,
        "synthesis": config.synthesis_frames,
    }
    said = {**(metadata or {}), **{f"revithion.{key}": str(value) for key, value in contract.items()}}
    helper.set_model_props(model, said)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Nodes:
    """Nodes and constants of a graph that is being written; names are numbered, so that they are always the same."""

    def __init__(self, *, half: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._half = half

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        return self.ops(kind, *inputs, outs=(out or f"n{len(self.nodes)}",), **attributes)[0]

    def ops(self, kind: str, *inputs: str, outs: Sequence[str] = (), count: int = 1, **attributes: Any) -> list[str]:
        """Adds a node with several outputs; returns their names."""
        names = list(outs) or [f"n{len(self.nodes)}_{index}" for index in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def weight(self, values: Any) -> str:
        """Adds a float constant, from a tensor or an array, in float16 if the graph is half and it is large."""
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if self._half and array.size >= HALF_FROM:
            return self.op("Cast", self._constant(array.astype(np.float16)), to=TensorProto.FLOAT)
        return self._constant(array.astype(np.float32))

    def shape(self, *sizes: int) -> str:
        """Adds a constant of whole numbers: a shape, or sizes of parts."""
        return self._constant(np.array(sizes, np.int64))

    def _constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def reshape(self, x: str, *sizes: int) -> str:
        """The same numbers in another shape."""
        return self.op("Reshape", x, self.shape(*sizes))

    def split(self, x: str, sizes: Sequence[int], *, axis: int = 0) -> list[str]:
        """Consecutive parts along an axis."""
        return self.ops("Split", x, self.shape(*sizes), count=len(sizes), axis=axis)

    def product(self, x: str, weight: Tensor, bias: Tensor) -> str:
        """``[n, in]``, weight ``[out, in]`` as in a linear layer, bias ``[out]`` → ``[n, out]``."""
        return self.op("Gemm", x, self.weight(weight), self.weight(bias), transB=1)

    def norm(self, layer: nn.LayerNorm, x: str) -> str:
        """Over the last axis."""
        weight, bias = self.weight(layer.weight), self.weight(layer.bias)
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=layer.eps)

    def gelu(self, x: str) -> str:
        """By tanh, as in the network."""
        return self.op("Gelu", x, approximate="tanh")


def _features(nodes: _Nodes, column: str, bins: int) -> str:
    """``[1, 2, F, 2]`` → ``[features, F]``; see :func:`revithion_stems.models.causal_preview.features`."""
    pair = nodes.reshape(column, 2, bins * 2)  # [2, F·2]
    mixing = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.5, -0.5]], np.float32)
    four = nodes.op("MatMul", nodes.weight(mixing), pair)  # [features, F·2]
    four = nodes.reshape(four, FEATURES, bins, 2)  # [features, F, 2]
    power = nodes.op("ReduceSumSquare", four, nodes.shape(2), keepdims=0)  # [features, F]
    power = nodes.op("Add", power, nodes.weight(np.float32(1e-5)))
    return nodes.op("Mul", nodes.op("Log", power), nodes.weight(np.float32(0.25 / math.log(10))))  # [features, F]


def _encoder(nodes: _Nodes, encoder: BandEncoder, features: str) -> str:
    """``[features, F]`` → ``[K, C]``."""
    sizes = [count * width for count, width in encoder.bands]
    groups: list[str] = []
    parts = nodes.split(features, sizes, axis=1)  # [features, n·w] each
    for part, (count, width), weight in zip(parts, encoder.bands, encoder.weight, strict=True):
        bins = nodes.op("Transpose", nodes.reshape(part, FEATURES, count, width), perm=[1, 0, 2])  # [n, features, w]
        bins = nodes.reshape(bins, count, 1, FEATURES * width)
        groups.append(nodes.op("MatMul", bins, nodes.weight(weight)))  # [n, 1, C]
    bands, channels = encoder.bias.shape
    joined = nodes.reshape(nodes.op("Concat", *groups, axis=0), bands, channels)  # [K, C]
    return nodes.op("Add", joined, nodes.weight(encoder.bias))


def _block(nodes: _Nodes, block: Block, x: str, memory: str, next_memory: str) -> str:
    """``[K, C]`` and memory ``[K, C]`` → the same."""
    y = _gru(nodes, block.gru, nodes.norm(block.time_norm, x), memory, next_memory)  # [K, C]
    x = nodes.op("Add", x, y)
    y = nodes.norm(block.band_norm, x)  # [K, C]; bands are mixed from the left, so that nothing is transposed
    y = nodes.op("MatMul", nodes.weight(block.band_in.weight), y)  # [expansion·K, C]
    y = nodes.gelu(nodes.op("Add", y, nodes.weight(block.band_in.bias[:, None])))
    y = nodes.op("MatMul", nodes.weight(block.band_out.weight), y)  # [K, C]
    y = nodes.op("Add", y, nodes.weight(block.band_out.bias[:, None]))
    x = nodes.op("Add", x, y)
    y = nodes.norm(block.channel_norm, x)  # [K, C]
    y = nodes.gelu(nodes.product(y, block.channel_in.weight, block.channel_in.bias))  # [K, expansion·C]
    y = nodes.product(y, block.channel_out.weight, block.channel_out.bias)  # [K, C]
    return nodes.op("Add", x, y)


def _gru(nodes: _Nodes, gru: nn.GRU, x: str, memory: str, next_memory: str) -> str:
    """``[K, C]`` and memory ``[K, C]`` → ``[K, C]``, which is the next memory too.

    PyTorch's convention: gates in the order r, z, n, and n = tanh(given + r · kept), biases inside both. Two products
    and their sums take less time than ONNX Runtime's GRU on one step.
    """
    c = gru.hidden_size
    given_weight, kept_weight, given_bias, kept_bias = gru.all_weights[0]
    given = nodes.product(x, given_weight, given_bias)  # [K, 3·C]
    kept = nodes.product(memory, kept_weight, kept_bias)  # [K, 3·C]
    given_gates, given_new = nodes.split(given, (2 * c, c), axis=1)
    kept_gates, kept_new = nodes.split(kept, (2 * c, c), axis=1)
    gates = nodes.op("Sigmoid", nodes.op("Add", given_gates, kept_gates))  # [K, 2·C]
    reset, update = nodes.split(gates, (c, c), axis=1)  # [K, C]
    new = nodes.op("Tanh", nodes.op("Add", given_new, nodes.op("Mul", reset, kept_new)))  # [K, C]
    change = nodes.op("Mul", update, nodes.op("Sub", memory, new))
    return nodes.op("Add", new, change, out=next_memory)  # (1 − z) · n + z · memory


def _decoder(nodes: _Nodes, decoder: BandDecoder, x: str) -> str:
    """``[K, C]`` → logits ``[S·2, F]``."""
    bands, channels = decoder.hidden_bias.shape
    x = nodes.reshape(nodes.norm(decoder.norm, x), bands, 1, channels)  # [K, 1, C]
    x = nodes.op("MatMul", x, nodes.weight(decoder.hidden_weight))  # [K, 1, C]
    x = nodes.gelu(nodes.op("Add", x, nodes.weight(decoder.hidden_bias[:, None])))
    groups: list[str] = []
    parts = nodes.split(x, [count for count, _ in decoder.bands])
    for part, (count, width), weight in zip(parts, decoder.bands, decoder.weight, strict=True):
        bins = nodes.op("MatMul", part, nodes.weight(weight))  # [n, 1, S·2·w]
        bins = nodes.op("Transpose", nodes.reshape(bins, count, decoder.outputs, width), perm=[1, 0, 2])  # [S·2, n, w]
        groups.append(nodes.reshape(bins, decoder.outputs, count * width))
    return nodes.op("Add", nodes.op("Concat", *groups, axis=1), nodes.weight(decoder.bias))  # [S·2, F]


def _shared_out(nodes: _Nodes, logits: str, column: str, *, stems: int, bins: int) -> None:
    """Logits ``[S·2, F]`` and the column → ``stems``.

    Each mask is wanted twice, side by side, for the real and the imaginary part: to turn two copies of all of them
    takes less time than to broadcast over an axis of two.
    """
    masks = nodes.op("Softmax", nodes.reshape(logits, stems, 2 * bins), axis=0)  # [S, 2·F]
    masks = nodes.reshape(masks, 1, stems * 2 * bins)
    twice = nodes.op("Transpose", nodes.op("Concat", masks, masks, axis=0), perm=[1, 0])  # [S·2·F, 2]
    shared = nodes.op("Mul", nodes.reshape(column, 1, 4 * bins), nodes.reshape(twice, stems, 4 * bins))  # [S, 2·F·2]
    nodes.op("Reshape", shared, nodes.shape(1, stems, 2, bins, 2), out="stems")


def _value(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
