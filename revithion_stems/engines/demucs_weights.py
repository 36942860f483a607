"""Demucs weights from the three forms they are published in, into the classes of the ``demucs`` package.

Nothing in a file chooses what code runs: the class comes from ``_CLASSES``, by the catalog's architecture; a file only
gives constructor arguments (plain data) and tensors. Pickles are read with ``weights_only`` and a short allow-list.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import re
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs

from revithion_stems.catalog import Architecture, ModelSpec, WeightsFile, WeightsFormat
from revithion_stems.errors import EngineError, ModelError

_CLASSES: dict[Architecture, type[torch.nn.Module]] = {
    Architecture.HTDEMUCS: HTDemucs,
    Architecture.HDEMUCS: HDemucs,
}
_ONNX_ARGUMENTS = {"dconv_mode": 3, "bottom_channels": 512, "t_layers": 5}
_FREQ_EMB_SCALE = 10.0


def load_network(spec: ModelSpec, file: WeightsFile, path: Path) -> torch.nn.Module:
    """The network stored in a verified weights file.

    Args:
        spec: Says the architecture and the stems, which the file must agree with.
        file: Says the format.
        path: The file, whose SHA-256 the caller has verified.

    Raises:
        ModelError: The file is not readable as that, or its tensors don't fit.
        EngineError: A quantised model without the package ``diffq``.
    """
    cls = _CLASSES[spec.architecture]
    readers = {
        WeightsFormat.ONNX: _from_onnx,
        WeightsFormat.SAFETENSORS: _from_safetensors,
        WeightsFormat.TORCH: _from_pickle,
    }
    try:
        network = readers[file.format](cls, spec, path)
    except (ModelError, EngineError):
        raise
    except Exception as exc:  # four libraries parse here, each with errors of its own
        raise ModelError(
            f"{path.name} does not hold {spec.name}: {str(exc).splitlines()[0] if str(exc) else type(exc).__name__}",
            hint=f"Run `revithion-stems models pull {spec.name} --force`.",
            code="model.unreadable",
        ) from exc
    sources = tuple(getattr(network, "sources", ()))
    if sources != spec.stems:
        raise ModelError(
            f"{path.name} separates {sources}, the catalog says {spec.stems}",
            hint="Import the file that belongs to this model.",
            code="model.stems",
        )
    return network


def _from_pickle(cls: type[torch.nn.Module], spec: ModelSpec, path: Path) -> torch.nn.Module:
    allowed: list[Any] = [cls, Fraction]
    with contextlib.suppress(EngineError):  # without diffq, a quantised file fails in _build, with the hint
        allowed += [_diffq().DiffQuantizer, _diffq().UniformQuantizer]
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return _build(cls, package["args"], package["kwargs"], package["state"])


def _from_safetensors(cls: type[torch.nn.Module], spec: ModelSpec, path: Path) -> torch.nn.Module:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
        metadata: dict[str, str] = file.metadata() or {}
        state: Any = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 — not a mapping
    if "structure" in metadata:
        state = _unflatten(json.loads(metadata["structure"]), state)
    arguments = _decode(json.loads(metadata.get("args", "[]")))
    return _build(cls, arguments, _decode(json.loads(metadata["kwargs"])), state)


def _build(cls: type[torch.nn.Module], args: Any, kwargs: dict[str, Any], state: dict[str, Any]) -> torch.nn.Module:
    known = inspect.signature(cls).parameters
    network = cls(*args, **{key: value for key, value in kwargs.items() if key in known})
    if state.get("__quantized"):
        _diffq().restore_quantized_state(network, state)
    else:
        network.load_state_dict(state)
    return network


def _diffq() -> Any:
    """The optional package that quantised weights need."""
    try:
        return importlib.import_module("diffq")
    except ImportError as exc:
        raise EngineError(
            "this model is quantised with DiffQ, which is not installed",
            hint="Run `pip install 'revithion-stems[quantized]'`, or use mdx_extra, which is the same unquantised.",
            code="engine.missing",
        ) from exc


def _decode(value: Any) -> Any:
    """JSON of constructor arguments, in which a fraction is an object with ``_type``, as plain Python values."""
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return Fraction(value["numerator"], value["denominator"])
        return {key: _decode(item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value


def _unflatten(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A nested state rebuilt from flat tensors and the JSON that describes it; classes only from diffq's two."""
    if not isinstance(node, dict):
        return node
    if "_tensor" in node:
        return tensors[node["_tensor"]]
    if "_dict" in node:
        return {key: _unflatten(item, tensors) for key, item in node["_dict"]}
    if "_list" in node:
        return [_unflatten(item, tensors) for item in node["_list"]]
    if "_tuple" in node:
        return tuple(_unflatten(item, tensors) for item in node["_tuple"])
    name = str(node.get("_class", "")).rsplit(".", 1)[-1]
    if name in ("DiffQuantizer", "UniformQuantizer"):
        return getattr(_diffq(), name)
    raise ValueError(f"unknown node {node!r} in the file's structure")


def _from_onnx(cls: type[torch.nn.Module], spec: ModelSpec, path: Path) -> torch.nn.Module:
    network = cls(sources=list(spec.stems), segment=spec.segment_s, **_ONNX_ARGUMENTS)
    network.load_state_dict(state_from_onnx(path, network.state_dict()))
    return network


def state_from_onnx(path: Path, expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters of HTDemucs out of its exported graph.

    Convolutions keep their names in the graph. The exporter renamed the rest, but each node still carries the path of
    the module that it came from: ``/encoder.0/dconv/layers.0/layers.0.1/Mul`` multiplies by the weight of the group
    norm ``encoder.0.dconv.layers.0.1``. Constant folding changed three things, which are undone here: the frequency
    embedding (one row per frequency, broadcast and scaled), attention projections (cross attention has query and
    key/value apart), and linear layers (transposed).

    Args:
        path: The ONNX file.
        expected: The state dict to fill: names and shapes.

    Returns:
        Tensors for exactly the names of ``expected``.

    Raises:
        ValueError: A parameter is missing or has another size.
    """
    graph = onnx.load(path).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, Any] = {name: _array(values[name]) for name in expected if name in values}
    for node in graph.node:
        constants = [_array(values[name]) for name in node.input if name in values and name not in expected]
        if len(constants) != 1:
            continue
        key = _parameter_name(node.name, node.op_type, constants[0].ndim)
        if key is None:
            continue
        value = constants[0]
        if node.op_type == "MatMul":
            value = value.T
        if key == "freq_emb.embedding.weight":
            value = value[0, :, :, 0].T / _FREQ_EMB_SCALE
        if "in_proj" in key and key in found:  # cross attention: the query came first, key and value follow
            value = np.concatenate([found[key], value])
        found[key] = value
    wrong = {name for name in expected if name not in found or found[name].size != expected[name].numel()}
    if wrong:
        raise ValueError(f"{len(wrong)} of {len(expected)} parameters are missing or misshapen, first {min(wrong)}")
    return {
        name: torch.from_numpy(np.array(found[name], dtype=np.float32).reshape(tuple(tensor.shape)))
        for name, tensor in expected.items()
    }


def _array(tensor: Any) -> Any:
    return onnx.numpy_helper.to_array(tensor)


def _parameter_name(node_name: str, op_type: str, dimensions: int) -> str | None:
    """The parameter that a node's constant is, or None if it is something else (a shape, an epsilon)."""
    if node_name == "/Expand":
        return "freq_emb.embedding.weight"
    parts = node_name.strip("/").split("/")[:-1]
    if not parts or dimensions == 0:
        return None
    # A module list repeats its index: layers.0/layers.0.1 is module layers.0.1.
    names: list[str] = []
    for part in parts:
        if names and re.fullmatch(re.escape(names[-1]) + r"\.\d+", part):
            names.pop()
        names.append(part)
    module = ".".join(names)
    attention = module.endswith(("self_attn", "cross_attn"))
    match op_type:
        case "MatMul" if attention:
            return f"{module}.in_proj_weight"
        case "Add" if attention and dimensions == 1:
            return f"{module}.in_proj_bias"
        case "MatMul" if ".linear" in module:
            return f"{module}.weight"
        case "Mul" if re.search(r"dconv\.layers\.\d+\.6$", module):
            return f"{module}.scale"
        case "Mul" if _is_norm(module):
            return f"{module}.weight"
        case "Add" if _is_norm(module):
            return f"{module}.bias"
        case _:
            return None


def _is_norm(module: str) -> bool:
    return bool(re.search(r"(dconv\.layers\.\d+\.[14]|norm_out)$", module))
