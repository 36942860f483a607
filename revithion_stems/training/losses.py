"""How far estimates are from their targets, as numbers to make small.

A network gives samples or masks; :class:`Estimates` holds whichever it gave, and computes the rest when a loss asks for
it. Letters of shapes: B batch, S stems, T columns, F bins, n frames.

Sources: the SDR with a floor follows Wisdom et al. 2020 (MixIT, arXiv 2006.12701, thresholded SNR); multi-resolution
magnitudes, Yamamoto et al. 2020 (Parallel WaveGAN, arXiv 1910.11480); SI-SDR, Le Roux et al. 2019 (arXiv 1811.02508).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from revithion_stems.models.spectrogram import analyse, synthesise
from revithion_stems.models.stft_design import StftDesign

if TYPE_CHECKING:
    from revithion_stems.training.train_config import LossWeights

_FLOOR: Final = 1e-2
"""Of the energy of the mix: errors below it don't count any more. Without it a silent target would be everything."""

_LEAST: Final = 1e-4
"""Of the energy of the mix, added to errors: the root has no slope at 0."""

_RESOLUTIONS: Final = (4096, 2048, 512)
_TINY: Final = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masked:
    """What a causal network gives, column by column.

    Attributes:
        masks: float32 ``[B, T, S, 2, F]``.
        mix: complex64 ``[B, T, 2, F]``.
        targets: complex64 ``[B, T, S, 2, F]``; they sum to the mix.
    """

    masks: Tensor
    mix: Tensor
    targets: Tensor


class Estimates:
    """Estimated stems and their targets, as samples and as spectra.

    Args:
        design: Of the spectra.
        targets: float32 ``[B, S, 2, n]``.
        samples: Estimates of the same shape; or None, with ``masked``.
        masked: Masks of a spectrogram; or None.
    """

    def __init__(
        self, design: StftDesign, targets: Tensor, *, samples: Tensor | None = None, masked: Masked | None = None
    ) -> None:
        if (samples is None) == (masked is None):
            raise ValueError("give either samples or masks")
        self.design = design
        self.targets = targets
        self.masked = masked
        self._samples = samples

    @cached_property
    def samples(self) -> Tensor:
        """Estimates ``[B, S, 2, n]``."""
        if self._samples is not None:
            return self._samples
        return synthesise(self.design, self.spectra, self.targets.shape[-1])

    @cached_property
    def spectra(self) -> Tensor:
        """Estimates complex64 ``[B, S, 2, T, F]``."""
        if self.masked is None:
            return analyse(self.design, self.samples)
        return (self.masked.masks * self.masked.mix.unsqueeze(2)).permute(0, 2, 3, 1, 4)

    @cached_property
    def target_spectra(self) -> Tensor:
        """Targets complex64 ``[B, S, 2, T, F]``."""
        return analyse(self.design, self.targets) if self.masked is None else self.masked.targets.permute(0, 2, 3, 1, 4)


def error(estimates: Estimates) -> Tensor:
    """Root of (error / mix) of each stem's spectra, energies of the whole example, mean over stems; 0 is perfect.

    The slope is the same for a loud stem as for a quiet one. `sdr`, whose slope is that of a logarithm, spends most of
    itself on what is nearly silent (``docs/training-log.md``).
    """
    errors, _, mix = _energies(estimates)
    return ((errors + _LEAST * mix + _TINY) / (mix + _TINY)).sqrt().mean()


def sdr(estimates: Estimates) -> Tensor:
    """10·log10((error + floor) / (target + floor)) / 10 of each stem's spectra, mean over stems; −2…0 and above."""
    errors, energy, mix = _energies(estimates)
    floor = _FLOOR * mix + _TINY  # [B, 1]
    return torch.log10((errors + floor) / (energy + floor)).mean()


def _energies(estimates: Estimates) -> tuple[Tensor, Tensor, Tensor]:
    """Of errors ``[B, S]``, targets ``[B, S]`` and mix ``[B, 1]``."""
    masked = estimates.masked
    if masked is None:
        target = estimates.target_spectra
        return _energy(estimates.spectra - target), _energy(target), _energy(target.sum(1, keepdim=True))
    # |m·x − s|² = m·(m·|x|² − 2·Re(x*·s)) + |s|²: real numbers, a third of the time
    mix, targets = torch.view_as_real(masked.mix), torch.view_as_real(masked.targets)
    power = mix.square().sum(-1).unsqueeze(2)  # [B, T, 1, 2, F]
    crossed = (targets * mix.unsqueeze(2)).sum(-1)  # [B, T, S, 2, F]
    energy = targets.square().sum((1, 3, 4, 5))  # [B, S]
    errors = (masked.masks * torch.addcmul(-2 * crossed, masked.masks, power)).sum((1, 3, 4)) + energy
    return errors, energy, power.sum((1, 3, 4))


def magnitude(estimates: Estimates) -> Tensor:
    """L1 between magnitudes of the spectra, over the mean magnitude of the mix."""
    target = estimates.target_spectra
    return (_magnitude(estimates.spectra) - _magnitude(target)).abs().mean() / _scale(target)


def complex_l1(estimates: Estimates) -> Tensor:
    """L1 between real and between imaginary parts of the spectra, over the mean magnitude of the mix."""
    target = estimates.target_spectra
    return torch.view_as_real(estimates.spectra - target).abs().mean() / _scale(target)


def multi_resolution(estimates: Estimates) -> Tensor:
    """L1 between magnitudes at three resolutions, over the mean magnitude of the target; the mean of the three."""
    total = estimates.targets.new_zeros(())
    for size in _RESOLUTIONS:
        window = torch.hann_window(size, device=estimates.targets.device)
        pair = torch.stack((estimates.samples, estimates.targets)).flatten(0, 3)  # [2·B·S·2, n]
        ours, true = _magnitude(torch.stft(pair, size, size // 4, window=window, return_complex=True)).chunk(2)
        total = total + (ours - true).abs().mean() / (true.mean() + _TINY)
    return total / len(_RESOLUTIONS)


def si_sdr(estimates: Estimates) -> Tensor:
    """Minus the scale-invariant SDR of the samples, dB / 10, mean over stems; bounded by a floor as in :func:`sdr`."""
    target, ours = estimates.targets.flatten(2), estimates.samples.flatten(2)  # [B, S, 2·n]
    floor = _FLOOR * target.sum(1, keepdim=True).square().sum(-1) + _TINY  # [B, 1]
    energy = target.square().sum(-1)  # [B, S]
    projected = ((ours * target).sum(-1) / (energy + _TINY)).unsqueeze(-1) * target  # [B, S, 2·n]
    error = (ours - projected).square().sum(-1)
    return torch.log10((error + floor) / (projected.square().sum(-1) + floor)).mean()


LOSSES: Final = {
    "error": error,
    "sdr": sdr,
    "magnitude": magnitude,
    "complex": complex_l1,
    "multi_resolution": multi_resolution,
    "si_sdr": si_sdr,
}
"""Every loss by its key in the configuration."""


def weighted_loss(estimates: Estimates, weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum to make small, and the losses that are in it, each without its weight and gradient."""
    parts = {name: loss(estimates) for name, loss in LOSSES.items() if getattr(weights, name) > 0}
    total = torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
    return total, {name: value.detach() for name, value in parts.items()}


def _energy(spectra: Tensor) -> Tensor:
    return torch.view_as_real(spectra).square().flatten(2).sum(-1)  # [B, S, …] → [B, S]


def _magnitude(spectra: Tensor) -> Tensor:
    return (torch.view_as_real(spectra).square().sum(-1) + 1e-10).sqrt()  # the root has no slope at 0


def _scale(target: Tensor) -> Tensor:
    return _magnitude(target.sum(1)).mean() + 1e-4
