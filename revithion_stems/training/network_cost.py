"""What a run of a network costs, counted and not timed."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from revithion_stems.engines.trained_torch import separate


def gflop(network: nn.Module, frames: int, *, sample_rate: int) -> float:
    """Floating point operations of one run, in 10^9, within a few per cent; a multiplication and an addition are two.

    Counted on half a second and on a whole one, and carried on to ``frames``: convolutions and recurrences cost as
    their length, attention as its square.

    Args:
        network: Of :mod:`revithion_stems.models.architectures`, on the CPU.
        frames: Of the run.
        sample_rate: Hz.
    """
    short = sample_rate // 2
    once, twice = _count(network.eval(), short), _count(network, 2 * short)  # a·n + b·n² and 2·a·n + 4·b·n²
    square = max(0.0, twice - 2 * once) / 2
    length = frames / short
    return ((once - square) * length + square * length**2) / 1e9


def _count(network: nn.Module, frames: int) -> int:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # setting the flag back speaks of Intel's GPUs
        # oneDNN's LSTM is one operation, which the counter does not know.
        with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            separate(network, torch.zeros(1, 2, frames))
    return counter.get_total_flops()
