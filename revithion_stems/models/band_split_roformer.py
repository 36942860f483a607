"""Band-Split RoFormer and Mel-Band RoFormer: transformers along time and across bands in turns, and complex masks.

    spectrum ─ bands ─ norm, linear each ─┬─> attention along time, per band ─> attention across bands ─┐ × depth
                                          └─────────────────────────────────────────────────────────────┘
             ─ per stem and band: MLP, gate ─ complex masks × spectrum

Both see both channels at once. They differ in the division of the spectrum (62 bands side by side, or overlapping mel
bands, whose masks are averaged) and, as published, in where the last norm stands: once before the masks, or at the end
of every transformer.

Letters of shapes: B batch, C channels of audio, F bins, T columns, K bands, W bins of one band, D features, E features
of an attention head, S stems.

Sources: Lu et al.: Music Source Separation with Band-Split RoPE Transformer (2023, arXiv 2309.02612); Wang et al.:
Mel-Band RoFormer for Music Source Separation (2023, arXiv 2310.01809). What the papers leave open is as in the public
checkpoints (:mod:`revithion_stems.models.checkpoint_layouts`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Final

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revithion_stems.models.bands import ROFORMER_WIDTHS, Bands, bands_of_widths, mel_bands
from revithion_stems.models.masked_spectrogram import BandMap, samples_of, spectrum_of
from revithion_stems.models.rotary_transformer import (
    RmsNorm,
    Transformer,
    TransformerSizes,
    rotation_of,
    standard_turns,
)

CHANNELS: Final = 2
"""C: the networks are for stereo."""

# The upper bounds are far above sense; they keep a wrong file from costing hours or overflowing.
_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=256)]
_Hidden = Annotated[int, msgspec.Meta(ge=0, le=256)]
_Rate = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoformerConfig(ABC):
    """Sizes of a :class:`BandSplitRoformer`, except its bands.

    Attributes:
        stems: Names, in the order of the output.
        sample_rate: Hz.
        fft_frames: Of the transform.
        hop_frames: Between columns; at most a quarter of it.
        dim: D, features of a band.
        depth: Transformers along time and across bands, so many of both.
        heads: Of attention.
        head_dim: E, even.
        time_layers, band_layers: Layers of each transformer.
        feed_forward_expansion: Hidden size of the layers' MLPs, as a multiple of D.
        mask_layers: Hidden layers of the mask MLPs.
        mask_expansion: Their size, as a multiple of D.
        attention_dropout, dropout: While training.
    """

    stems: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("vocals",)
    sample_rate: _Size = 44_100
    fft_frames: _Size = 2048
    hop_frames: _Size = 441
    dim: _Size = 384
    depth: _Count = 12
    heads: _Size = 8
    head_dim: _Size = 64
    time_layers: _Count = 1
    band_layers: _Count = 1
    feed_forward_expansion: _Count = 4
    mask_layers: _Hidden = 1
    mask_expansion: _Count = 4
    attention_dropout: _Rate = 0.0
    dropout: _Rate = 0.0

    last_norms: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.fft_frames % 2 or self.hop_frames * 4 > self.fft_frames:
            raise ValueError(f"fft_frames {self.fft_frames} must be even and at least 4 × hop_frames {self.hop_frames}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even: features are turned in pairs")
        if not self.division:
            raise ValueError("bands are none")

    @property
    def transformer(self) -> TransformerSizes:
        """What all transformers have in common."""
        return TransformerSizes(
            dim=self.dim,
            heads=self.heads,
            head_dim=self.head_dim,
            expansion=self.feed_forward_expansion,
            attention_dropout=self.attention_dropout,
            dropout=self.dropout,
            last_norm=self.last_norms,
        )

    @property
    @abstractmethod
    def division(self) -> Bands:
        """The bands, in bins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandSplitRoformerConfig(RoformerConfig):
    """Band-Split RoFormer: bands side by side, one norm before the masks.

    Attributes:
        widths: Bins of each band; together ``fft_frames / 2 + 1``.
    """

    widths: tuple[int, ...] = ROFORMER_WIDTHS

    @property
    def division(self) -> Bands:
        """The bands, in bins."""
        return bands_of_widths(self.widths, self.fft_frames // 2 + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MelBandRoformerConfig(RoformerConfig):
    """Mel-Band RoFormer: overlapping bands, a norm at the end of every transformer.

    Attributes:
        bands: So many.
    """

    depth: _Count = 6
    mask_layers: _Hidden = 2
    bands: Annotated[int, msgspec.Meta(ge=2)] = 60

    last_norms: ClassVar[bool] = True

    @property
    def division(self) -> Bands:
        """The bands, in bins."""
        return mel_bands(self.bands, self.sample_rate, self.fft_frames)


class Block(nn.Module):
    """A transformer along time, bands apart and with shared weights; then one across bands, columns apart."""

    def __init__(self, config: RoformerConfig) -> None:
        super().__init__()
        self.time = Transformer(config.transformer, config.time_layers)
        self.band = Transformer(config.transformer, config.band_layers)

    def forward(self, x: Tensor, time_rotation: Tensor, band_rotation: Tensor) -> Tensor:
        """``[B, T, K, D]``, complex64 ``[T, E/2]`` and ``[K, E/2]`` → ``[B, T, K, D]``."""
        x = self.time(x.transpose(1, 2), time_rotation)  # [B, K, T, D]
        return self.band(x.transpose(1, 2), band_rotation)  # [B, T, K, D]


class BandEncoder(nn.Module):
    """The bins of one band → its features."""

    def __init__(self, width: int, config: RoformerConfig) -> None:
        super().__init__()
        self.norm = RmsNorm(width * CHANNELS * 2)
        self.linear = nn.Linear(width * CHANNELS * 2, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, W·C·2]`` → ``[B, T, D]``."""
        return self.linear(self.norm(x))


class MaskDecoder(nn.Module):
    """The features of one band → the complex mask of its bins, of one stem."""

    def __init__(self, width: int, config: RoformerConfig) -> None:
        super().__init__()
        sizes = [config.dim, *[config.dim * config.mask_expansion] * config.mask_layers, width * CHANNELS * 4]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` → ``[B, T, W·C·2]``."""
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else torch.tanh(x))  # [B, T, hidden], at last [B, T, W·C·4]
        return F.glu(x)


class StemDecoder(nn.Module):
    """The features of all bands → the complex masks of one stem."""

    def __init__(self, config: RoformerConfig) -> None:
        super().__init__()
        self.bands = nn.ModuleList([MaskDecoder(end - first, config) for first, end in config.division])

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, K, D]`` → ``[B, T, ΣW·C·2]``."""
        return torch.cat([decoder(band) for decoder, band in zip(self.bands, x.unbind(2), strict=True)], dim=2)


class BandSplitRoformer(nn.Module):
    """The whole network, of either kind: waveform in, stems out.

    Args:
        config: Sizes and bands.
    """

    causal: ClassVar[bool] = False

    time_turns: Tensor
    band_turns: Tensor

    def __init__(self, config: RoformerConfig) -> None:
        super().__init__()
        self.config = config
        self.band_map = BandMap(config.division)
        self.encoders = nn.ModuleList([BandEncoder(end - first, config) for first, end in config.division])
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.norm = nn.Identity() if config.last_norms else RmsNorm(config.dim)
        self.decoders = nn.ModuleList([StemDecoder(config) for _ in config.stems])
        # Radians per position and pair of features. They are in checkpoints, since public ones have them too.
        self.register_buffer("time_turns", standard_turns(config.head_dim))  # [E/2]
        self.register_buffer("band_turns", standard_turns(config.head_dim))  # [E/2]

    def forward(self, mix: Tensor) -> Tensor:
        """Stems of a mix.

        Args:
            mix: float32 ``[B, 2, frames]``.

        Returns:
            float32 ``[B, S, 2, frames]``.
        """
        config = self.config
        spectrum = spectrum_of(mix, config.fft_frames, config.hop_frames)  # [B, C, F, T]
        bands = self.band_map.split(spectrum)  # K × [B, T, W·C·2]
        x = torch.stack([enc(band) for enc, band in zip(self.encoders, bands, strict=True)], dim=2)  # [B, T, K, D]
        time_rotation = rotation_of(self.time_turns, x.shape[1])  # [T, E/2]
        band_rotation = rotation_of(self.band_turns, x.shape[2])  # [K, E/2]
        for block in self.blocks:
            x = block(x, time_rotation, band_rotation)  # [B, T, K, D]
        x = self.norm(x)
        masks = torch.stack([decoder(x) for decoder in self.decoders], dim=1)  # [B, S, T, ΣW·C·2]
        mask = self.band_map.join(masks, CHANNELS)  # [B, S, C, F, T]
        return samples_of(mask * spectrum[:, None], config.fft_frames, config.hop_frames, mix.shape[2])
