"""Demucs networks by PyTorch, on CPU, CUDA or Apple's MPS."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch

from revithion_stems.audio import Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.engines import EngineOptions, Separator, WeightsPath
from revithion_stems.engines.demucs_weights import load_network
from revithion_stems.engines.torch_errors import torch_errors
from revithion_stems.units import format_db, power_db

SAFE_ERROR_DB = -40.0
"""Largest error of half precision, relative to fp32, that a master may have.

A model whose own error is 10 dB below the stem (SDR 10 dB, more than any here reaches on average) has error power 0.1;
an independent error 40 dB below adds 0.0001, which lowers the SDR by 10·log10(1.001) = 0.004 dB.
"""


def load(spec: ModelSpec, paths: Sequence[WeightsPath], options: EngineOptions) -> list[Separator]:
    """A separator per file; see :data:`revithion_stems.engines.Factory`."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return [DemucsTorch(load_network(spec, file, path), spec, options) for file, path in paths]


class DemucsTorch:
    """One Demucs network.

    With ``bf16``, the first segment that is not silent is run in both precisions; half precision is kept only if its
    error is below :data:`SAFE_ERROR_DB`, and ``precision`` and ``precision_error_db`` tell what came of it.
    """

    def __init__(self, network: torch.nn.Module, spec: ModelSpec, options: EngineOptions) -> None:
        self._network = network.eval().to(options.device)
        self._device = options.device
        self._segment = spec.segment_frames if spec.segment_fixed else None
        self._wanted_precision = options.precision
        self.begin()

    def begin(self) -> None:
        """See :meth:`revithion_stems.engines.Separator.begin`: each source's own first segment decides on precision."""
        self.precision = self._wanted_precision
        self.precision_error_db: float | None = None

    @property
    def remark(self) -> str | None:
        """See :attr:`revithion_stems.engines.Separator.remark`."""
        if self.precision_error_db is None:
            return None
        kept = "was used" if self.precision != "fp32" else "was not used, all was computed in fp32"
        return f"bf16 {kept}: its error is {format_db(self.precision_error_db)}, allowed is {format_db(SAFE_ERROR_DB)}"

    @property
    def settled(self) -> bool:
        """See :attr:`revithion_stems.engines.Separator.settled`: once the precision is decided."""
        return self.precision == "fp32" or self.precision_error_db is not None

    def separate_segment(self, mix: Float32) -> Float32:
        """See :meth:`revithion_stems.engines.Separator.separate_segment`."""
        if self.precision == "fp32":
            return self._run(mix, half=False)
        if self.precision_error_db is not None:
            return self._run(mix, half=True)
        exact = self._run(mix, half=False)
        power = float(np.square(exact, dtype=np.float64).sum())
        if power > 0.0:
            error = float(np.square(exact.astype(np.float64) - self._run(mix, half=True)).sum())
            self.precision_error_db = power_db(error / power) if math.isfinite(error) else math.inf
            if self.precision_error_db > SAFE_ERROR_DB:
                self.precision = "fp32"
        return exact

    def _run(self, mix: Float32, *, half: bool) -> Float32:
        frames = mix.shape[1]
        if self._segment is not None and frames < self._segment:
            mix = np.pad(mix, ((0, 0), (0, self._segment - frames)))
        # A copy: torch warns about read-only arrays, and must not share memory with a caller's buffer.
        batch = torch.from_numpy(np.array(mix, dtype=np.float32))[None]  # [1, 2, frames]
        with (
            torch_errors(self._device),
            torch.inference_mode(),
            torch.autocast(self._device, torch.bfloat16, enabled=half),
            _flash_attention(),
        ):
            out: Any = self._network(batch.to(self._device))  # [1, stems, 2, frames]
            return out[0, ..., :frames].float().cpu().numpy()


@contextlib.contextmanager
def _flash_attention() -> Generator[None]:
    """Sends self-attention through scaled dot product attention, as cross-attention goes already.

    In evaluation PyTorch takes a "fast path" for self-attention, which on a CPU multiplies out all 2688² weights of
    each head. Without it a segment took a quarter less time, at the same output within 2e-6.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
