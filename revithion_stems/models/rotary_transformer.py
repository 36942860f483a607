"""Transformers with rotary positions, gated heads and norms before each part, as the band-split RoFormers use them.

Attention turns its queries and keys with their position, so that what they have in common depends on their distance,
and gates each head's output.

Letters of shapes: B batch, N sequences, L their length, D features, H heads, E features of a head.

Sources: Vaswani et al. 2017 (arXiv 1706.03762); Su et al.: RoFormer (2021, arXiv 2104.09864); Zhang, Sennrich: Root
Mean Square Layer Normalization (2019, arXiv 1910.07467). The gates are those of the public checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROTATION_BASE: Final = 10_000.0
"""The slowest pair of features turns by a little more than one ROTATION_BASE-th radian per position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerSizes:
    """What the transformers of a network have in common.

    Attributes:
        dim: D.
        heads: H.
        head_dim: E, even.
        expansion: Hidden size of the MLPs, as a multiple of D.
        attention_dropout, dropout: While training.
        last_norm: Whether a transformer ends with a norm.
    """

    dim: int
    heads: int
    head_dim: int
    expansion: int = 4
    attention_dropout: float = 0.0
    dropout: float = 0.0
    last_norm: bool = False


class RmsNorm(nn.Module):
    """Features of root mean square 1, then a factor for each. Zeros stay zeros; all else is scaled up, however low."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., features]`` → the same."""
        return F.normalize(x, dim=-1) * (x.shape[-1] ** 0.5) * self.gamma


class Attention(nn.Module):
    """Self-attention with turned queries and keys, and a gate per head and position."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        inner = sizes.heads * sizes.head_dim
        self.heads = sizes.heads
        self.dropout = sizes.attention_dropout
        self.norm = RmsNorm(sizes.dim)
        self.queries_keys_values = nn.Linear(sizes.dim, 3 * inner, bias=False)
        self.gates = nn.Linear(sizes.dim, sizes.heads)
        self.out = nn.Linear(inner, sizes.dim, bias=False)
        self.out_dropout = nn.Dropout(sizes.attention_dropout)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """``[B, L, D]`` and complex64 ``[L, E/2]`` → ``[B, L, D]``."""
        x = self.norm(x)  # [B, L, D]
        q, k, v = (
            self.queries_keys_values(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # [B, H, L, E] each
        y = F.scaled_dot_product_attention(
            turned(q, rotation), turned(k, rotation), v, dropout_p=self.dropout if self.training else 0.0
        )  # [B, H, L, E]
        y = y * torch.sigmoid(self.gates(x)).transpose(1, 2).unsqueeze(3)  # [B, H, L, 1]
        return self.out_dropout(self.out(y.transpose(1, 2).flatten(2)))  # [B, L, H·E] → [B, L, D]


class FeedForward(nn.Module):
    """Norm, and an MLP at each position."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        hidden = sizes.dim * sizes.expansion
        self.norm = RmsNorm(sizes.dim)
        self.widen = nn.Linear(sizes.dim, hidden)
        self.narrow = nn.Linear(hidden, sizes.dim)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, D]`` → the same."""
        x = self.dropout(F.gelu(self.widen(self.norm(x))))  # [B, L, hidden]
        return self.dropout(self.narrow(x))  # [B, L, D]


class Layer(nn.Module):
    """Attention, then a feed-forward; each is added to its input."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.attention = Attention(sizes)
        self.feed_forward = FeedForward(sizes)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """``[B, L, D]`` and complex64 ``[L, E/2]`` → ``[B, L, D]``."""
        x = x + self.attention(x, rotation)
        return x + self.feed_forward(x)


class Transformer(nn.Module):
    """Layers along one axis, with a norm at their end where the architecture has it."""

    def __init__(self, sizes: TransformerSizes, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(sizes) for _ in range(layers)])
        self.norm = RmsNorm(sizes.dim) if sizes.last_norm else nn.Identity()

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """``[B, N, L, D]``, N sequences, and complex64 ``[L, E/2]`` → ``[B, N, L, D]``."""
        b, n, _, _ = x.shape
        x = x.flatten(0, 1)  # [B·N, L, D]
        for layer in self.layers:
            x = layer(x, rotation)  # [B·N, L, D]
        return self.norm(x).unflatten(0, (b, n))


def standard_turns(head_dim: int) -> Tensor:
    """How far each pair of a head's features is turned per position: base^(−2i/E) radians.

    Args:
        head_dim: E, even.

    Returns:
        float32 ``[E/2]``.
    """
    return ROTATION_BASE ** -(torch.arange(0, head_dim, 2).float() / head_dim)


def rotation_of(turns: Tensor, length: int) -> Tensor:
    """Unit numbers by which pairs of features are multiplied, at positions 0 to length − 1.

    Args:
        turns: Radians per position, float32 ``[E/2]``.
        length: L.

    Returns:
        complex64 ``[L, E/2]``.
    """
    angles = torch.outer(torch.arange(length, device=turns.device).float(), turns.float())  # [L, E/2]
    return torch.polar(torch.ones_like(angles), angles)


def turned(x: Tensor, rotation: Tensor) -> Tensor:
    """Queries or keys, turned: neighbouring features are a complex number, times that of its position.

    Args:
        x: ``[B, H, L, E]``.
        rotation: complex64 ``[L, E/2]``.

    Returns:
        As ``x``.
    """
    pairs = torch.view_as_complex(x.float().unflatten(3, (-1, 2)).contiguous())  # [B, H, L, E/2]
    return torch.view_as_real(pairs * rotation).flatten(3).to(x.dtype)  # [B, H, L, E]
