"""BSRNN: a spectrum divided into bands, LSTMs along time and across bands in turns, and complex masks.

    spectrum ─ bands ─ norm, linear each ─┬─> LSTM along time, per band ─> LSTM across bands, per column ─┐ × blocks
                                          └───────────────────────────────────────────────────────────────┘
             ─ per stem and band: norm, MLP, gate ─ complex masks × spectrum

Both directions of time are used: it is an offline network. Each channel of audio goes through it by itself, as in the
paper.

Letters of shapes: B batch (channels among them), T columns, F bins, K bands, W bins of one band, D features, S stems.

Source: Luo, Yu: Music Source Separation with Band-split RNN (2022, arXiv 2209.15174). The norms, over all features and
positions of a sequence, are those of the authors' code for the Sound Demixing Challenge 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revithion_stems.models.bands import BSRNN_TABLES, Bands, HertzTable, bands_of_table
from revithion_stems.models.masked_spectrogram import BandMap, samples_of, spectrum_of

# The upper bounds are far above sense; they keep a wrong file from costing hours or overflowing.
_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BsrnnConfig:
    """Sizes of a :class:`Bsrnn`; the paper's by default.

    Attributes:
        stems: Names, in the order of the output. The paper has a network per stem; several share all but the masks.
        sample_rate: Hz.
        fft_frames: Of the transform.
        hop_frames: Between columns; at most a quarter of it.
        bands: As in :data:`~revithion_stems.models.bands.BSRNN_TABLES`.
        dim: D, features of a band.
        blocks: LSTMs along time and across bands, so many of both.
        hidden_expansion: Hidden size of the LSTMs in each direction, as a multiple of D.
        mask_expansion: Hidden size of the mask MLPs, the same way.
    """

    stems: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("vocals",)
    sample_rate: _Size = 44_100
    fft_frames: _Size = 2048
    hop_frames: _Size = 512
    bands: HertzTable = BSRNN_TABLES["vocals"]
    dim: _Size = 128
    blocks: _Count = 12
    hidden_expansion: _Count = 2
    mask_expansion: _Count = 4

    def __post_init__(self) -> None:
        if self.fft_frames % 2 or self.hop_frames * 4 > self.fft_frames:
            raise ValueError(f"fft_frames {self.fft_frames} must be even and at least 4 × hop_frames {self.hop_frames}")
        if not self.division:
            raise ValueError("bands are none")

    @property
    def division(self) -> Bands:
        """The bands, in bins."""
        return bands_of_table(self.bands, self.sample_rate, self.fft_frames)


class SequenceNorm(nn.Module):
    """Mean 0 and variance 1 over all features and positions of each sequence; then a scale and an offset each."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, length, features]`` → the same."""
        # PyTorch's group norm wants features first; 1e-7 is far below the variance of a band that can be heard.
        return F.group_norm(x.transpose(1, 2), 1, self.weight, self.bias, eps=1e-7).transpose(1, 2)


class ResidualLstm(nn.Module):
    """Norm, an LSTM in both directions and a linear layer, added to the input."""

    def __init__(self, config: BsrnnConfig) -> None:
        super().__init__()
        hidden = config.dim * config.hidden_expansion
        self.norm = SequenceNorm(config.dim)
        self.lstm = nn.LSTM(config.dim, hidden, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * hidden, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, length, D]`` → the same."""
        y, _ = self.lstm(self.norm(x))  # [B, length, 2·hidden]
        return x + self.linear(y)


class Block(nn.Module):
    """Along time, each band by itself with shared weights; then across bands, each column by itself."""

    def __init__(self, config: BsrnnConfig) -> None:
        super().__init__()
        self.time = ResidualLstm(config)
        self.band = ResidualLstm(config)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, K, T, D]`` → the same."""
        b, k, t, _ = x.shape
        x = self.time(x.flatten(0, 1)).unflatten(0, (b, k))  # [B·K, T, D] → [B, K, T, D]
        x = x.transpose(1, 2).flatten(0, 1)  # [B·T, K, D]
        return self.band(x).unflatten(0, (b, t)).transpose(1, 2)  # [B, K, T, D]


class BandEncoder(nn.Module):
    """The bins of one band → its features."""

    def __init__(self, width: int, config: BsrnnConfig) -> None:
        super().__init__()
        self.norm = SequenceNorm(2 * width)
        self.linear = nn.Linear(2 * width, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, W·2]`` → ``[B, T, D]``."""
        return self.linear(self.norm(x))


class MaskDecoder(nn.Module):
    """The features of one band → the complex mask of its bins, of one stem."""

    def __init__(self, width: int, config: BsrnnConfig) -> None:
        super().__init__()
        hidden = config.dim * config.mask_expansion
        self.norm = SequenceNorm(config.dim)
        self.hidden = nn.Linear(config.dim, hidden)
        self.out = nn.Linear(hidden, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` → ``[B, T, W·2]``; real and imaginary parts alternate."""
        x = torch.tanh(self.hidden(self.norm(x)))  # [B, T, hidden]
        return F.glu(self.out(x))  # [B, T, W·4] → [B, T, W·2]


class StemDecoder(nn.Module):
    """The features of all bands → the complex masks of one stem."""

    def __init__(self, config: BsrnnConfig) -> None:
        super().__init__()
        self.bands = nn.ModuleList([MaskDecoder(end - first, config) for first, end in config.division])

    def forward(self, x: Tensor) -> Tensor:
        """``[B, K, T, D]`` → ``[B, T, ΣW·2]``."""
        return torch.cat([decoder(band) for decoder, band in zip(self.bands, x.unbind(1), strict=True)], dim=2)


class Bsrnn(nn.Module):
    """The whole network: waveform in, stems out.

    Args:
        config: Sizes.
    """

    causal: ClassVar[bool] = False

    def __init__(self, config: BsrnnConfig) -> None:
        super().__init__()
        self.config = config
        self.band_map = BandMap(config.division)
        self.encoders = nn.ModuleList([BandEncoder(end - first, config) for first, end in config.division])
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.blocks)])
        self.decoders = nn.ModuleList([StemDecoder(config) for _ in config.stems])

    def forward(self, mix: Tensor) -> Tensor:
        """Stems of a mix.

        Args:
            mix: float32 ``[B, C, frames]``, any number of channels.

        Returns:
            float32 ``[B, S, C, frames]``.
        """
        b, c, frames = mix.shape
        config = self.config
        spectrum = spectrum_of(mix, config.fft_frames, config.hop_frames)  # [B, C, F, T]
        bands = self.band_map.split(spectrum.flatten(0, 1).unsqueeze(1))  # K × [B·C, T, W·2]
        x = torch.stack([enc(band) for enc, band in zip(self.encoders, bands, strict=True)], dim=1)  # [B·C, K, T, D]
        for block in self.blocks:
            x = block(x)  # [B·C, K, T, D]
        masks = torch.stack([decoder(x) for decoder in self.decoders], dim=1)  # [B·C, S, T, ΣW·2]
        mask = self.band_map.join(masks, 1).squeeze(2).unflatten(0, (b, c)).transpose(1, 2)  # [B, S, C, F, T]
        return samples_of(mask * spectrum[:, None], config.fft_frames, config.hop_frames, frames)
