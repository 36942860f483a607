"""The hand-written backward pass of a GRU: the values and all gradients of PyTorch's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revithion_stems.models.gru_sequence import gru_sequence

SHAPES = [(1, 1, 1, 1), (1, 3, 4, 4), (7, 1, 3, 5), (9, 6, 8, 2), (40, 2, 5, 5)]
"""Steps, sequences, input and state size."""

CLOSE: dict[str, Any] = {"rtol": 2e-4, "atol": 2e-5}
"""Float32 sums over some dozens of steps, in another order."""


def layer(seed: int, given: int, kept: int, *, scale: float = 1.0) -> nn.GRU:
    torch.manual_seed(seed)
    gru = nn.GRU(given, kept)
    with torch.no_grad():
        for parameter in gru.parameters():
            parameter.mul_(scale)
    return gru


def gradients(
    outcome: tuple[Tensor, Tensor], x: Tensor, state: Tensor, gru: nn.GRU, *, last: bool = True
) -> dict[str, Tensor]:
    """Of a weighted sum of all that comes out, by everything that goes in."""
    out, after = outcome
    weights = torch.cos(torch.arange(out.numel(), dtype=torch.float32)).view_as(out)
    wanted = (out * weights).sum() + (3.0 * after.sin().sum() if last else 0.0)
    names = ("x", "state", *(name for name, _ in gru.named_parameters()))
    return dict(zip(names, torch.autograd.grad(wanted, (x, state, *gru.parameters())), strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("scale", [1.0, 4.0], ids=["calm", "saturated"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_all_gradients_are_those_of_pytorch(
    shape: tuple[int, int, int, int], scale: float, seed: int
) -> None:
    steps, sequences, given, kept = shape
    gru = layer(seed, given, kept, scale=scale)
    x = torch.randn(steps, sequences, given, requires_grad=True)
    state = torch.randn(1, sequences, kept, requires_grad=True)
    ours, theirs = gru_sequence(gru, x, state), gru(x, state)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)
    mine, other = gradients(ours, x, state, gru), gradients(theirs, x, state, gru)
    assert mine.keys() == other.keys()
    for name, gradient in other.items():
        scaled = float(gradient.abs().max()) + 1e-3
        torch.testing.assert_close(
            mine[name] / scaled, gradient / scaled, msg=lambda text, n=name: f"{n}: {text}", **CLOSE
        )


def test_gradients_agree_with_finite_differences() -> None:
    """The slow way, which knows nothing of either formula; PyTorch's GRU in float64 is what is differentiated."""
    gru = layer(3, 3, 4)
    x, state = torch.randn(5, 2, 3, requires_grad=True), torch.randn(1, 2, 4, requires_grad=True)
    ours = gradients(gru_sequence(gru, x, state), x, state, gru)
    precise = copy.deepcopy(gru).double()
    named = {"x": x.detach().double(), "state": state.detach().double(), **dict(precise.named_parameters())}

    def wanted() -> float:
        with torch.no_grad():
            out, after = precise(named["x"], named["state"])
            weights = torch.cos(torch.arange(out.numel(), dtype=torch.float64)).view_as(out)
            return float((out * weights).sum() + 3.0 * after.sin().sum())

    step = 1e-5
    for name, values in named.items():
        flat = values.detach().view(-1)
        for index in range(0, flat.numel(), max(1, flat.numel() // 6)):
            kept = float(flat[index])
            flat[index] = kept + step
            above = wanted()
            flat[index] = kept - step
            slope = (above - wanted()) / (2 * step)
            flat[index] = kept
            assert float(ours[name].reshape(-1)[index]) == pytest.approx(slope, abs=2e-4, rel=1e-3), (name, index)


def test_only_the_last_state_or_only_the_sequence_may_be_asked_for() -> None:
    gru = layer(4, 3, 3)
    x, state = torch.randn(6, 2, 3, requires_grad=True), torch.zeros(1, 2, 3, requires_grad=True)
    for index in (0, 1):
        ours = torch.autograd.grad(gru_sequence(gru, x, state)[index].square().sum(), (x, *gru.parameters()))
        theirs = torch.autograd.grad(gru(x, state)[index].square().sum(), (x, *gru.parameters()))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, **CLOSE)


def test_rows_that_do_not_lie_side_by_side_are_taken_too() -> None:
    gru = layer(5, 4, 4)
    x = torch.randn(3, 7, 4).transpose(0, 1).requires_grad_()  # [T, N, C] as a view
    state = torch.zeros(1, 3, 4, requires_grad=True)
    ours, theirs = (gradients(out, x, state, gru) for out in (gru_sequence(gru, x, state), gru(x, state)))
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, **CLOSE)


def test_a_sequence_in_pieces_is_the_sequence() -> None:
    gru = layer(6, 4, 4)
    x, state = torch.randn(10, 2, 4, requires_grad=True), torch.randn(1, 2, 4, requires_grad=True)
    whole = gru_sequence(gru, x, state)
    first, between = gru_sequence(gru, x[:3], state)
    second, after = gru_sequence(gru, x[3:], between)
    pieces = torch.cat((first, second)), after
    for mine, other in zip(pieces, whole, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    ours, theirs = gradients(pieces, x, state, gru), gradients(whole, x, state, gru)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, **CLOSE)


def test_without_gradients_it_is_pytorch_s_own() -> None:
    gru = layer(7, 4, 4)
    x, state = torch.randn(8, 3, 4), torch.randn(1, 3, 4)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            for mine, other in zip(gru_sequence(gru, x, state), gru(x, state), strict=True):
                assert torch.equal(mine, other)
    assert torch.is_grad_enabled()
    for mine, other in zip(gru_sequence(gru, x, state), gru(x, state), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_under_autocast_it_adds_up_in_float32() -> None:
    gru = layer(8, 6, 6)
    x, state = torch.randn(30, 2, 6, requires_grad=True), torch.randn(1, 2, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out, after = gru_sequence(gru, x, state)
    assert out.dtype == after.dtype == torch.float32
    plain = gru_sequence(gru, x, state)
    assert torch.equal(out, plain[0])
    ours, theirs = gradients((out, after), x, state, gru), gradients(plain, x, state, gru)
    for name, gradient in theirs.items():
        assert torch.equal(ours[name], gradient), name


def test_half_precision_input_under_autocast_gets_its_gradient() -> None:
    gru = layer(9, 4, 4)
    x = torch.randn(5, 2, 4).bfloat16().requires_grad_()
    state = torch.zeros(1, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = gru_sequence(gru, x, state)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert bool(torch.isfinite(x.grad).all())
