"""Losses: least for the truth, finite on silence, and what makes them small makes estimates better."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from revithion_stems.models.spectrogram import columns_first, synthesise
from revithion_stems.models.stft_design import StftDesign
from revithion_stems.quality import si_sdr_db
from revithion_stems.training.losses import LOSSES, Estimates, Masked, sdr, si_sdr, weighted_loss
from revithion_stems.training.separating import OFFLINE_DESIGN
from revithion_stems.training.train_config import LossWeights

DESIGN = StftDesign(analysis_frames=256, synthesis_frames=128, hop_frames=64)
FRAMES = 4_480  # seventy hops, and more than the longest window of the losses
STEMS = 3
NAMES = sorted(LOSSES)


def stems_of(seed: int = 0, *, batch: int = 2, level: float = 0.2) -> Tensor:
    """Targets [B, S, 2, n], each in a range of frequencies of its own, with some noise."""
    random = torch.Generator().manual_seed(seed)
    time = torch.arange(FRAMES) / 8_000
    tone = torch.stack([torch.sin(2 * math.pi * f * time) for f in (110.0, 620.0, 2_400.0)])  # [S, n]
    noise = torch.randn((batch, STEMS, 2, FRAMES), generator=random)
    return level * (tone[None, :, None] + 0.2 * noise)


def masked(targets: Tensor, logits: Tensor) -> Estimates:
    """Estimates from masks, as the causal network gives them."""
    spectra = columns_first(DESIGN, targets)
    found = Masked(masks=torch.softmax(logits, 2), mix=spectra.sum(2), targets=spectra)
    return Estimates(DESIGN, targets, masked=found)


def logits_for(targets: Tensor, seed: int = 1, *, spread: float = 1.0) -> Tensor:
    batch, columns = targets.shape[0], FRAMES // DESIGN.hop_frames
    random = torch.Generator().manual_seed(seed)
    return spread * torch.randn((batch, columns, STEMS, 2, DESIGN.bins), generator=random)


def sampled(targets: Tensor, samples: Tensor) -> Estimates:
    return Estimates(OFFLINE_DESIGN, targets, samples=samples)


def only(name: str) -> LossWeights:
    return LossWeights(**{other: float(other == name) for other in LOSSES})


@pytest.mark.parametrize("silent", [(), (1,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_sdr_in_real_numbers_is_sdr_of_the_spectra(spread: float, silent: tuple[int, ...]) -> None:
    """The fast way with masks against the plain one, in value and gradient."""
    targets = stems_of()
    targets[:, list(silent)] = 0.0
    logits = logits_for(targets, spread=spread).requires_grad_()
    fast = masked(targets, logits)
    assert fast.masked is not None
    plain = masked(targets, logits)
    plain_spectra, plain_targets = plain.spectra, plain.target_spectra
    plain.masked = None
    assert plain.spectra is plain_spectra  # the ones from the masks, which it remembers
    assert plain.target_spectra is plain_targets
    value, expected = sdr(fast), sdr(plain)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    (ours,), (theirs,) = torch.autograd.grad(value, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()) + 1e-12)


def test_samples_and_spectra_of_masks_belong_together() -> None:
    targets = stems_of()
    estimates = masked(targets, logits_for(targets))
    assert estimates.samples.shape == targets.shape
    torch.testing.assert_close(estimates.samples, synthesise(DESIGN, estimates.spectra, FRAMES))
    whole = FRAMES - DESIGN.synthesis_frames + DESIGN.hop_frames
    total = estimates.samples.sum(1)[..., :whole]
    torch.testing.assert_close(total, targets.sum(1)[..., :whole], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_is_least(name: str) -> None:
    targets = stems_of()
    best = float(LOSSES[name](sampled(targets, targets.clone())))
    assert best == pytest.approx({"sdr": -1.5, "si_sdr": -1.5}.get(name, 0.0), abs=0.25)
    worse = [best]
    for amount in (0.03, 0.1, 0.3, 1.0):
        worse.append(float(LOSSES[name](sampled(targets, targets + amount * stems_of(seed=7).flip(1)))))
    assert worse == sorted(worse)
    assert worse[1] > best + 1e-4
    swapped = float(LOSSES[name](sampled(targets, targets.flip(1))))
    assert swapped > worse[2]


@pytest.mark.parametrize("name", NAMES)
def test_masks_that_are_right_beat_those_that_know_nothing(name: str) -> None:
    targets = stems_of()
    power = torch.view_as_real(columns_first(DESIGN, targets)).square().sum(-1)
    ideal = float(LOSSES[name](masked(targets, torch.log(power + 1e-9))))
    even = float(LOSSES[name](masked(targets, torch.zeros_like(power))))
    assert ideal < even - 0.05


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["one target", "all targets", "everything", "estimate"])
def test_silence_has_gradients(name: str, what: str) -> None:
    targets = stems_of()
    if what == "one target":
        targets[:, 1] = 0.0
    elif what != "estimate":
        targets = torch.zeros_like(targets)
    samples = (torch.zeros_like(targets) if what in ("everything", "estimate") else stems_of(seed=3)).requires_grad_()
    value = LOSSES[name](sampled(targets, samples))
    value.backward()
    assert samples.grad is not None
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(samples.grad).all())
    if what in ("one target", "all targets"):
        assert float(samples.grad.abs().max()) > 0  # sound where there should be none is to go away


@pytest.mark.parametrize("name", NAMES)
def test_masks_over_silence_have_gradients(name: str) -> None:
    for targets in (torch.zeros_like(stems_of()), stems_of() * torch.tensor([1.0, 0.0, 0.0])[:, None, None]):
        logits = logits_for(targets).requires_grad_()
        value = LOSSES[name](masked(targets, logits))
        value.backward()
        assert logits.grad is not None
        assert bool(torch.isfinite(value) & torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_make_it_smaller(name: str) -> None:
    targets = stems_of(batch=1)
    logits = logits_for(targets, spread=0.1).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.3)
    seen: list[float] = []
    for _ in range(8):
        optimiser.zero_grad()
        value, parts = weighted_loss(masked(targets, logits), only(name))
        assert set(parts) == {name}
        value.backward()
        optimiser.step()
        seen.append(value.item())
    assert seen[-1] < seen[0] - 0.03
    assert seen[-1] == min(seen)


def test_si_sdr_is_that_of_quality_on_loud_stems() -> None:
    """Up to the floor: an error below a hundredth of the mix does not count; here it is well above."""
    targets = stems_of(batch=1)
    for amount in (0.5, 1.0, 2.0):
        ours = 0.7 * targets + amount * stems_of(seed=5, batch=1).roll(1, dims=1)
        figures = [si_sdr_db(true.numpy(), guess.numpy()) for true, guess in zip(targets[0], ours[0], strict=True)]
        expected = -sum(figures) / STEMS / 10
        # The floor adds a hundredth of the mix to both sides of a fraction of about one.
        assert float(si_sdr(sampled(targets, ours))) == pytest.approx(expected, abs=0.03)
    twice = si_sdr(sampled(targets, 2 * ours))
    once = si_sdr(sampled(targets, ours))
    assert float(twice) == pytest.approx(float(once), abs=0.03)  # the scale hardly matters, but for the floor


def test_errors_below_the_floor_do_not_count() -> None:
    """What is 40 dB below the mix is worth little; without the floor it would be worth 2."""
    targets = stems_of()
    slightly, exactly = (float(sdr(sampled(targets, targets * gain))) for gain in (1.003, 1.0))
    assert slightly - exactly < 0.01


def test_batches_are_means_of_their_examples() -> None:
    targets, guess = stems_of(), stems_of(seed=9)
    for name in ("sdr", "si_sdr"):
        whole = float(LOSSES[name](sampled(targets, guess)))
        single = [float(LOSSES[name](sampled(targets[i : i + 1], guess[i : i + 1]))) for i in range(2)]
        assert whole == pytest.approx(sum(single) / 2, abs=1e-5)


def test_the_total_is_the_weighted_sum_and_nothing_else_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name, loss in list(LOSSES.items()):

        def counted(estimates: Estimates, name: str = name, loss: Callable[[Estimates], Tensor] = loss) -> Tensor:
            asked.append(name)
            return loss(estimates)

        monkeypatch.setitem(LOSSES, name, counted)
    targets = stems_of()
    weights = LossWeights(error=0.0, sdr=0.5, magnitude=0.0, complex=2.0, multi_resolution=0.25)
    total, parts = weighted_loss(sampled(targets, stems_of(seed=2)), weights)
    assert asked == ["sdr", "complex", "multi_resolution"]
    assert list(parts) == asked
    by_hand = 0.5 * parts["sdr"] + 2.0 * parts["complex"] + 0.25 * parts["multi_resolution"]
    torch.testing.assert_close(total, by_hand)
    assert not any(part.requires_grad for part in parts.values())


def test_losses_of_spectra_do_not_go_back_to_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = stems_of()
    estimates = masked(targets, logits_for(targets))
    monkeypatch.setattr("revithion_stems.training.losses.synthesise", None)
    weighted_loss(estimates, LossWeights(error=0.0, sdr=1.0, magnitude=1.0, complex=1.0))


def test_estimates_are_samples_or_masks() -> None:
    targets = stems_of()
    with pytest.raises(ValueError, match="either"):
        Estimates(DESIGN, targets)
    with pytest.raises(ValueError, match="either"):
        Estimates(DESIGN, targets, samples=targets, masked=masked(targets, logits_for(targets)).masked)
