"""Muon: momentum whose direction is made orthogonal, for matrices; AdamW for vectors.

PyTorch's own takes single matrices only; our bands have stacks of them, one per band, and recurrent layers hold the
matrices of their gates in one. Sources: Jordan et al. 2024, Muon, kellerjordan.github.io/posts/muon, of which the
polynomial is; Liu et al. 2025, Muon is scalable for LLM training, arXiv 2502.16982, of which the scale and the decay
are: an update is as large as AdamW's usually is, so that one rate does for both.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

_POLYNOMIAL: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5
_SCALE: Final = 0.2
"""Root of the mean square of AdamW's updates."""
_TINY: Final = 1e-7


class Muon(torch.optim.Optimizer):
    """Has one group of vectors, and one of matrices for each number of gates that are stacked in them.

    Args:
        network: Whose parameters. All but those of one dimension and those named ``bias`` are matrices.
        learning_rate: Of both.
        weight_decay: Of matrices.
        betas: Of AdamW.
        momentum: Of matrices.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
    ) -> None:
        vectors: list[Tensor] = []
        matrices: dict[int, list[Tensor]] = {}
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 1 or name == "bias" or name.endswith("_bias"):
                    vectors.append(parameter)
                else:
                    gates = parameter.shape[0] // module.hidden_size if isinstance(module, nn.RNNBase) else 1
                    matrices.setdefault(gates, []).append(parameter)
        groups: list[dict[str, Any]] = [{"params": vectors, "gates": 0, "weight_decay": 0.0}]
        groups += [{"params": found, "gates": gates} for gates, found in sorted(matrices.items())]
        defaults = {"lr": learning_rate, "weight_decay": weight_decay, "betas": betas, "momentum": momentum}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves every parameter that has a gradient."""
        for group in self.param_groups:
            move = _move_matrices if group["gates"] else _move_vector
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, parameter.grad, self.state[parameter], group)


def _move_vector(vector: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state.update(step=0, mean=torch.zeros_like(vector), square=torch.zeros_like(vector))
    first, second = group["betas"]
    state["step"] += 1
    mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first ** state["step"])
    square = state["square"].lerp_(gradient.square(), 1 - second) / (1 - second ** state["step"])
    vector.addcdiv_(mean, square.sqrt_().add_(_TINY), value=-group["lr"])


def _move_matrices(weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state.update(mean=torch.zeros_like(weight))
    mean = state["mean"].lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(mean, group["momentum"])  # Nesterov's
    stack = ahead.reshape(-1, ahead.shape[-2] // group["gates"], ahead.shape[-1])
    scale = _SCALE * max(stack.shape[1:]) ** 0.5
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    weight.add_(orthogonal(stack).view_as(weight), alpha=-group["lr"] * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices whose singular values are all about one, 0.7 to 1.2, by Newton and Schulz's iteration.

    Args:
        matrices: ``[n, rows, columns]``.
    """
    a, b, c = _POLYNOMIAL
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # the small square is the cheap one
    x = x / (x.norm(dim=(1, 2), keepdim=True) + _TINY)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
