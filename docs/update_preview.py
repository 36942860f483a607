"""Puts another graph into the package as the model `preview`, and its figures into the catalog.

Run ``python docs/update_preview.py GRAPH.onnx``; then ``python docs/make_models_table.py``. Title, licence and measured
quality in ``catalog.toml`` are written by hand: they are claims. Without GRAPH, the figures of the graph that is there
are written anew.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import onnx
from onnx import numpy_helper, shape_inference

ROOT = Path(__file__).resolve().parent.parent
GRAPH = ROOT / "revithion_stems" / "models" / "preview.onnx"
CATALOG = ROOT / "revithion_stems" / "catalog.toml"
_CONSTANTS = 10
"""Numbers of the features, which are not learnt: a matrix of 4 by 2, a floor and a factor."""


def figures(graph: Path, segment_s: Fraction) -> dict[str, str]:
    """What the catalog says of a graph, as it stands there.

    Args:
        graph: A graph of :mod:`revithion_stems.models.causal_preview_onnx`.
        segment_s: Seconds of a segment, for the arithmetic of one: two operations per multiply-add of all products.
    """
    content = graph.read_bytes()
    model = shape_inference.infer_shapes(onnx.load_from_string(content), strict_mode=True)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type in floats}
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    shapes |= {name: list(array.shape) for name, array in weights.items()}
    products = 0
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            size = shapes[node.input[0]][-1]
            for other in shapes[node.output[0]]:
                size *= other
            products += size
    said = {entry.key: entry.value for entry in model.metadata_props}
    steps = segment_s * int(said["revithion.sample_rate"]) / int(said["revithion.hop"])
    return {
        "parameters": str(sum(array.size for array in weights.values()) - _CONSTANTS),
        "gflop_per_segment": f"{2 * products * float(steps) / 1e9:.1f}",
        "size": str(len(content)),
        "sha256": f'"{hashlib.sha256(content).hexdigest()}"',
    }


def with_figures(text: str, new: dict[str, str]) -> str:
    """The text of the catalog with these values in the row of `preview`."""
    row = re.search(r'\[\[model\]\]\nname = "preview"\n.*?(?=\n\[\[model\]\]|\Z)', text, re.DOTALL)
    if row is None:
        raise ValueError("the catalog has no row 'preview'")
    changed = row[0]
    for key, value in new.items():
        changed, count = re.subn(rf"(?m)^( *{key} = ).*$", lambda found, value=value: found[1] + value, changed)
        if count != 1:
            raise ValueError(f"the row 'preview' has {count} lines {key!r}")
    return text[: row.start()] + changed + text[row.end() :]


def catalog_segment(text: str) -> Fraction:
    """Seconds of a segment of `preview`."""
    found = re.search(r'\nname = "preview"\n.*?\nsegment = "([0-9/]+)"', text, re.DOTALL)
    if found is None:
        raise ValueError("the catalog has no row 'preview' with a segment")
    return Fraction(found[1])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        shutil.copyfile(sys.argv[1], GRAPH)
    old = CATALOG.read_text(encoding="utf-8")
    CATALOG.write_text(with_figures(old, figures(GRAPH, catalog_segment(old))), encoding="utf-8")
