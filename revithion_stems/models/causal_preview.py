"""The causal preview network: band split, GRUs over time, light mixing across bands, masks that sum to one.

It sees one column of an asymmetric spectrogram (:mod:`revithion_stems.models.stft_design`) at a time and remembers in
the GRUs' states, so that what it says of a column depends on that column and the past only. Magnitudes go in, and real
masks come out, by a softmax over the stems: the stems sum to the mix whatever the weights are.

    column ─ log magnitudes of L, R, M, S ─ split into bands ─┬─> GRU over time, per band, shared weights ─┐ × blocks
                                                              └── mixing across bands ── mixing of channels ┘
           ─ per band: logits of each bin, channel and stem ─ softmax over stems

Letters of shapes: B batch, T columns (hops), F bins, K bands, C channels of a band, S stems.

Sources: the splitting into bands is that of Luo & Yu 2022 (BSRNN, arXiv 2209.15174); mixing over tokens and channels
that of Tolstikhin et al. 2021 (MLP-Mixer, arXiv 2105.01601); the windows, see there. The network itself is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revithion_stems.errors import LiveError
from revithion_stems.models.gru_sequence import gru_sequence
from revithion_stems.models.stft_design import StftDesign

FEATURES: Final = 4
"""Numbers per bin that the network sees: magnitudes of left, right, mid and side."""

BAND_TABLE: Final[tuple[tuple[int, int], ...]] = (
    (10, 2),
    (8, 4),
    (8, 8),
    (6, 16),
    (4, 32),
    (3, 64),
    (1, 128),
    (1, 365),
)
"""Bands as (how many, bins of each), from 0 Hz up: 41 for 1025 bins. At 44.1 kHz a bin is 21.5 Hz wide."""


# The upper bounds are far above sense; they keep a wrong file from costing hours or overflowing.
_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalPreviewConfig:
    """Sizes of a :class:`CausalPreview`.

    Attributes:
        stems: Names, in the order of the output.
        sample_rate: Hz.
        analysis_frames, synthesis_frames, hop_frames: Of the spectrogram.
        channels: C, of a band.
        blocks: GRU and mixing, so many times.
        band_expansion: Hidden size of the mixing across bands, as a multiple of the bands.
        channel_expansion: The same of the mixing of channels.
        bands: As :data:`BAND_TABLE`; their bins must add up to ``analysis_frames / 2 + 1``.
    """

    stems: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("drums", "bass", "other", "vocals")
    sample_rate: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 44_100
    analysis_frames: _Size = 2048
    synthesis_frames: _Size = 512
    hop_frames: _Size = 256
    channels: _Size = 64
    blocks: _Count = 3
    band_expansion: _Count = 2
    channel_expansion: _Count = 2
    bands: tuple[tuple[_Size, _Size], ...] = BAND_TABLE

    def __post_init__(self) -> None:
        try:
            _ = self.design
        except LiveError as exc:  # that of a graph that can't be played; here it is an option that can't be
            raise ValueError(str(exc)) from exc
        if sum(count * width for count, width in self.bands) != self.analysis_frames // 2 + 1:
            raise ValueError(f"bands {self.bands} don't have {self.analysis_frames // 2 + 1} bins together")

    @property
    def design(self) -> StftDesign:
        """The windows."""
        return StftDesign(
            analysis_frames=self.analysis_frames, synthesis_frames=self.synthesis_frames, hop_frames=self.hop_frames
        )


class BandEncoder(nn.Module):
    """Features of the bins of each band → its channels; every band has weights of its own."""

    def __init__(self, config: CausalPreviewConfig) -> None:
        super().__init__()
        self.bands = config.bands
        self.weight = nn.ParameterList(
            [nn.Parameter(_uniform((n, w * FEATURES, config.channels), w * FEATURES)) for n, w in config.bands]
        )  # per group of bands of one width: [n, features·w, C]
        self.bias = nn.Parameter(torch.zeros(sum(n for n, _ in config.bands), config.channels))  # [K, C]

    def forward(self, features: Tensor) -> Tensor:
        """``[B, T, features, F]`` → ``[B, T, K, C]``."""
        groups: list[Tensor] = []
        first = 0
        for (count, width), weight in zip(self.bands, self.weight, strict=True):
            bins = features[..., first : first + count * width].unflatten(3, (count, width))  # [B, T, features, n, w]
            groups.append(_per_band(bins.transpose(2, 3).flatten(3), weight))  # [B, T, n, C]
            first += count * width
        return torch.cat(groups, dim=2) + self.bias  # [B, T, K, C]


class BandDecoder(nn.Module):
    """Channels of each band → logits of its bins; every band has weights of its own."""

    def __init__(self, config: CausalPreviewConfig) -> None:
        super().__init__()
        self.bands = config.bands
        self.outputs = 2 * len(config.stems)  # of a bin: both channels of every stem
        c = config.channels
        bands = sum(n for n, _ in config.bands)
        self.norm = nn.LayerNorm(c)
        self.hidden_weight = nn.Parameter(_uniform((bands, c, c), c))  # [K, C, C]
        self.hidden_bias = nn.Parameter(torch.zeros(bands, c))  # [K, C]
        self.weight = nn.ParameterList([nn.Parameter(_uniform((n, c, w * self.outputs), c)) for n, w in config.bands])
        self.bias = nn.Parameter(torch.zeros(self.outputs, sum(n * w for n, w in config.bands)))  # [S·2, F]

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, K, C]`` → logits ``[B, T, S·2, F]``."""
        x = _per_band(self.norm(x), self.hidden_weight) + self.hidden_bias  # [B, T, K, C]
        x = F.gelu(x, approximate="tanh")
        groups: list[Tensor] = []
        first = 0
        for (count, width), weight in zip(self.bands, self.weight, strict=True):
            bins = _per_band(x[:, :, first : first + count], weight)  # [B, T, n, S·2·w]
            groups.append(bins.unflatten(3, (self.outputs, width)).transpose(2, 3).flatten(3))  # [B, T, S·2, n·w]
            first += count
        return torch.cat(groups, dim=3) + self.bias  # [B, T, S·2, F]


class Block(nn.Module):
    """A GRU over time that all bands share, then mixing across bands, then of channels; each is added to its input."""

    def __init__(self, config: CausalPreviewConfig) -> None:
        super().__init__()
        c = config.channels
        bands = sum(n for n, _ in config.bands)
        self.time_norm = nn.LayerNorm(c)
        self.gru = nn.GRU(c, c)
        self.band_norm = nn.LayerNorm(c)
        self.band_in = nn.Linear(bands, bands * config.band_expansion)
        self.band_out = nn.Linear(bands * config.band_expansion, bands)
        self.channel_norm = nn.LayerNorm(c)
        self.channel_in = nn.Linear(c, c * config.channel_expansion)
        self.channel_out = nn.Linear(c * config.channel_expansion, c)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, T, K, C]`` and state ``[1, B·K, C]`` → the same."""
        b, t, k, c = x.shape
        y = self.time_norm(x).transpose(0, 1).reshape(t, b * k, c)  # [T, B·K, C]
        y, state = gru_sequence(self.gru, y, state)  # [T, B·K, C]
        x = x + y.reshape(t, b, k, c).transpose(0, 1)  # [B, T, K, C]
        y = self.band_norm(x).transpose(2, 3)  # [B, T, C, K]
        y = self.band_out(F.gelu(self.band_in(y), approximate="tanh"))  # [B, T, C, K]
        x = x + y.transpose(2, 3)  # [B, T, K, C]
        y = self.channel_out(F.gelu(self.channel_in(self.channel_norm(x)), approximate="tanh"))  # [B, T, K, C]
        return x + y, state


class CausalPreview(nn.Module):
    """The whole network. Masks of a sequence of columns, or of one.

    Args:
        config: Sizes.
    """

    def __init__(self, config: CausalPreviewConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BandEncoder(config)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.blocks)])
        self.decoder = BandDecoder(config)

    def forward(self, columns: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Masks for the columns of a spectrogram.

        Args:
            columns: Of the mix, complex64 ``[B, T, 2, F]``.
            state: What the network remembers, float32 ``[blocks, B·K, C]``; None at the beginning.

        Returns:
            Masks float32 ``[B, T, S, 2, F]`` in 0…1 that sum to 1 over S, and the state after the last column.
        """
        batch = columns.shape[0]
        x = self.encoder(features(columns))  # [B, T, K, C]
        before = x.new_zeros(len(self.blocks), batch * x.shape[2], x.shape[3]) if state is None else state
        after: list[Tensor] = []
        for block, memory in zip(self.blocks, before.split(1), strict=True):
            x, last = block(x, memory.contiguous())
            after.append(last)
        logits = self.decoder(x).unflatten(2, (len(self.config.stems), 2))  # [B, T, S, 2, F]
        return torch.softmax(logits, dim=2), torch.cat(after)


@torch.no_grad()
def features(columns: Tensor) -> Tensor:
    """What the network sees of a column: log magnitudes of left, right, mid and side, about −1…1.

    Args:
        columns: complex64 ``[B, T, 2, F]``, of samples in −1…1 under a window of 2048: |X| is below 1024, about.

    Returns:
        float32 ``[B, T, features, F]``.
    """
    left, right = columns[:, :, 0], columns[:, :, 1]  # [B, T, F]
    four = torch.stack((left, right, (left + right) / 2, (left - right) / 2), dim=2)  # [B, T, features, F]
    power = torch.view_as_real(four).square().sum(-1)
    return torch.log10(power + 1e-5) * 0.25  # −1.25 (silence) … 1.5


def _per_band(x: Tensor, weight: Tensor) -> Tensor:
    """Each band times a matrix of its own: ``[B, T, n, in]``, ``[n, in, out]`` → ``[B, T, n, out]``."""
    b, t, n, size = x.shape
    rows = x.permute(2, 0, 1, 3).reshape(n, b * t, size)  # one matrix product per band; broadcasting would copy weights
    return torch.bmm(rows, weight).reshape(n, b, t, -1).permute(1, 2, 0, 3)


def _uniform(shape: tuple[int, ...], fan_in: int) -> Tensor:
    bound = fan_in**-0.5
    return torch.empty(shape).uniform_(-bound, bound)
