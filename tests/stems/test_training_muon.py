"""Muon against PyTorch's own optimisers, on what those can do, and on what only ours does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from revithion_stems.models.architectures import build
from revithion_stems.training.muon import Muon, orthogonal

RATE, DECAY, BETAS = 0.02, 0.1, (0.9, 0.99)


def muon(network: nn.Module) -> Muon:
    return Muon(network, learning_rate=RATE, weight_decay=DECAY, betas=BETAS)


def walk(
    parameters: list[nn.Parameter], optimisers: list[torch.optim.Optimizer], gradients: list[list[Tensor]]
) -> None:
    for each in gradients:
        for parameter, gradient in zip(parameters, each, strict=True):
            parameter.grad = gradient.clone()
        for optimiser in optimisers:
            optimiser.step()


def random_gradients(parameters: list[nn.Parameter], steps: int = 6) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [[torch.randn(p.shape, generator=generator) for p in parameters] for _ in range(steps)]


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16)])
def test_a_matrix_moves_as_in_pytorch_but_for_its_rounding(shape: tuple[int, int]) -> None:
    """Its iteration is in bfloat16, ours is not."""
    ours, theirs = nn.Linear(shape[1], shape[0]), nn.Linear(shape[1], shape[0])
    theirs.load_state_dict(ours.state_dict())
    gradients = random_gradients(list(ours.parameters()))
    walk(list(ours.parameters()), [muon(ours)], gradients)
    own = [
        torch.optim.Muon([theirs.weight], lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([theirs.bias], lr=RATE, weight_decay=0.0, betas=BETAS),
    ]
    walk(list(theirs.parameters()), own, gradients)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=6 * RATE * 0.2 * 0.05)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=0, atol=1e-6)


def test_a_stack_and_the_gates_of_a_recurrent_layer_move_one_by_one() -> None:
    class Stack(nn.Module):
        def __init__(self, weights: Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(weights.clone())

    start = torch.randn(3, 8, 12)
    stack, singles = Stack(start), [Stack(each) for each in start]
    gru = nn.GRU(12, 8)
    with torch.no_grad():
        gru.weight_ih_l0.copy_(start.reshape(24, 12))
    gradients = [torch.randn(3, 8, 12) for _ in range(4)]
    walk([stack.weight], [muon(stack)], [[each] for each in gradients])
    walk([gru.weight_ih_l0], [muon(gru)], [[each.reshape(24, 12)] for each in gradients])
    for index, single in enumerate(singles):
        walk([single.weight], [muon(single)], [[each[index]] for each in gradients])
        torch.testing.assert_close(stack.weight[index], single.weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gru.weight_ih_l0[8 * index :][:8], single.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5, 9), (2, 9, 5), (1, 1, 7), (3, 64, 64)])
def test_singular_values_become_about_one(shape: tuple[int, int, int]) -> None:
    found = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
    assert found.max() < 1.25
    assert found.median() > 0.6


def test_no_gradient_moves_nothing_and_a_gradient_of_zeros_no_more_than_decay() -> None:
    net = nn.Linear(4, 3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = muon(net)
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    walk(list(net.parameters()), [optimiser], [[torch.zeros(3, 4), torch.zeros(3)]])
    torch.testing.assert_close(net.weight, before["weight"] * (1 - RATE * DECAY))
    assert torch.equal(net.bias, before["bias"])


@pytest.mark.parametrize("architecture", ["causal_preview", "bsrnn", "bs_roformer", "mel_band_roformer"])
def test_every_parameter_of_every_architecture_is_in_one_group(architecture: str) -> None:
    network = build(architecture, {"preset": "lite"} if "roformer" in architecture else {})
    optimiser = muon(network)
    ids = [id(parameter) for group in optimiser.param_groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in network.parameters())
    vectors = {id(p) for group in optimiser.param_groups if group["gates"] == 0 for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert (id(parameter) in vectors) == (parameter.ndim == 1 or "bias" in name.rsplit(".", 1)[-1]), name
