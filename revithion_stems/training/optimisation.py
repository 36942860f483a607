"""The optimiser, the course of its rate, and the running mean of the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from revithion_stems.training.muon import Muon
from revithion_stems.training.train_config import OptimiserConfig, OptimiserKind


def make_optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """What moves the weights. Its decay leaves out vectors: biases and norms.

    Sources: AdamW is of Loshchilov, Hutter 2019: Decoupled weight decay regularization, arXiv 1711.05101; see
    :mod:`revithion_stems.training.muon` for the other.
    """
    if config.kind is OptimiserKind.MUON:
        return Muon(network, learning_rate=config.learning_rate, weight_decay=config.weight_decay, betas=config.betas)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def learning_rate(step: int, steps: int, config: OptimiserConfig) -> float:
    """The rate of a step: a rise, a plateau, a fall to zero, all straight.

    A run can be made longer afterwards, since nothing but the fall depends on its length. Source: Hägele et al. 2024:
    Scaling laws and compute-optimal training beyond fixed training durations, arXiv 2405.18392.

    Args:
        step: From 0 on.
        steps: Of the run.
        config: With the lengths of rise and fall.
    """
    rise = (step + 1) / config.warmup_steps if step < config.warmup_steps else 1.0
    fall = (steps - step) / (config.decay_steps + 1) if steps - step <= config.decay_steps else 1.0
    return config.learning_rate * min(rise, fall)


class MeanWeights:
    """An exponential running mean of a network's weights, in a network of its own.

    Args:
        network: Whose weights; the mean begins with them.
        decay: How much of the mean is kept at a step; less at the beginning, (1 + step) / (10 + step).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Takes the weights after a step, which is counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for mean, weight in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(weight, share)
        for mean, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            mean.copy_(buffer)
