"""A graph with explicit states, called hop by hop by ONNX Runtime without allocating or copying what it remembers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from revithion_realtime.models.onnx_contract import GraphContract, contract_error, read_contract
from revithion_stems.audio import Float32

_TYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class OnnxGraph:
    """A loaded graph and what it remembers. One thread at a time; it computes on the caller's thread alone.

    One input and one output are audio; every other input is a state, zero at first. The output that goes back into
    the state ``NAME`` is called ``next_NAME``, or, if the state is called ``REST_in``, ``REST_out``.

    Each state has two buffers, and there are two sets of bindings: one reads the first and writes the second, the other
    the opposite. Taking turns, a call's output is the next call's input where it stands.

    Args:
        path: The ``.onnx`` file.

    Attributes:
        contract: How it is run.
        audio: The input: float32 ``[2, hop]`` or ``[2, bins, 2]``, to be filled before :meth:`run`.
        stems: The output: float32 ``[stems, 2, hop]`` or ``[stems, 2, bins, 2]``, until the next :meth:`run`.

    Raises:
        LiveError: ``live.model``: it can't be read, does not say how it is run, or is not what it says.
    """

    def __init__(self, path: Path) -> None:
        self._session = _load(path)
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.contract = read_contract(path, metadata)
        audio_in, audio_out, states = _names(path, self.contract, self._session)
        audio, audio_value = _buffer(self.contract.input_shape)
        stems, stems_value = _buffer(self.contract.output_shape)
        self.audio: Float32 = audio[0]
        self.stems: Float32 = stems[0]
        shapes = {node.name: (node.shape, node.type) for node in self._session.get_inputs()}
        pairs = {name: [_buffer(shapes[name][0], shapes[name][1]) for _ in range(2)] for name in states}
        self._memory = [array for buffers in pairs.values() for array, _ in buffers]
        self._bindings: list[Any] = []
        for turn in range(2):
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(audio_in, audio_value)
            binding.bind_ortvalue_output(audio_out, stems_value)
            for name, back in states.items():
                binding.bind_ortvalue_input(name, pairs[name][turn][1])
                binding.bind_ortvalue_output(back, pairs[name][1 - turn][1])
            self._bindings.append(binding)
        self._turn = 0
        try:
            self.run()
        except Exception as exc:  # as in _load
            raise contract_error(f"{path.name} fails on silence: {_first_line(exc)}") from exc
        self.reset()

    def run(self) -> None:
        """Computes :attr:`stems` from :attr:`audio`.

        Where that comes to NaN or infinity, which the states would never lose again, it begins anew with this hop
        silent.
        """
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn = 1 - self._turn
        if not math.isfinite(float(self.stems.sum(dtype=np.float64))):  # as cheap as can be; finite sums can't overflow
            self.reset()

    def reset(self) -> None:
        """Forgets all input; :attr:`stems` are silent."""
        for array in (*self._memory, self.stems):
            array.fill(0)
        self._turn = 0


def _load(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Arm's KleidiAI kernels compute integer graphs differently from all others; StemgenRT's are made without it.
    options.add_session_config_entry("mlas.disable_kleidiai", "1")
    if not path.is_file():
        raise contract_error(f"there is no file {path}")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # the errors of ONNX Runtime and protobuf share no public base class
        raise contract_error(f"ONNX Runtime can't load {path.name}: {_first_line(exc)}") from exc


def _names(path: Path, contract: GraphContract, session: Any) -> tuple[str, str, dict[str, str]]:
    """Names of the audio input and output, and each state's with that of the output that goes back into it."""
    inputs = {node.name: (tuple(node.shape), node.type) for node in session.get_inputs()}
    outputs = {node.name: (tuple(node.shape), node.type) for node in session.get_outputs()}
    states: dict[str, str] = {}
    for name, (shape, kind) in inputs.items():
        back = next((out for out in _successors(name) if out in outputs), None)
        if back is None:
            continue
        if kind not in _TYPES or not all(isinstance(size, int) for size in shape):
            raise contract_error(
                f"{path.name}: state {name!r} is {_text(shape, kind)}; float or int64 of a fixed shape is possible"
            )
        if outputs[back] != (shape, kind):
            raise contract_error(
                f"{path.name}: state {name!r} is {_text(shape, kind)}, but {back!r} is {_text(*outputs[back])}"
            )
        states[name] = back
    audio_in = [name for name in inputs if name not in states]
    audio_out = [name for name in outputs if name not in states.values()]
    for what, names, found, shape in (
        ("input", audio_in, inputs, contract.input_shape),
        ("output", audio_out, outputs, contract.output_shape),
    ):
        if len(names) != 1:
            raise contract_error(
                f"{path.name}: one {what} is audio and the others are states, but {', '.join(names) or 'none'} "
                f"{'have' if len(names) > 1 else 'has'} no partner"
            )
        if found[names[0]] != (shape, "tensor(float)"):
            raise contract_error(
                f"{path.name}: {what} {names[0]!r} is {_text(*found[names[0]])}; by what the graph says of itself it "
                f"is {_text(shape, 'tensor(float)')}"
            )
    return audio_in[0], audio_out[0], states


def _successors(state: str) -> tuple[str, ...]:
    return (f"next_{state}", f"{state.removesuffix('_in')}_out") if state.endswith("_in") else (f"next_{state}",)


def _buffer(shape: Any, kind: str = "tensor(float)") -> tuple[Any, Any]:
    """Zeros, and the same memory as ONNX Runtime sees it."""
    array = np.zeros(tuple(shape), _TYPES[kind])
    return array, onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]


def _text(shape: Any, kind: str) -> str:
    return f"{kind.removeprefix('tensor(').removesuffix(')')} {list(shape)}"
