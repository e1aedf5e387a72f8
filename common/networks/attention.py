"""Transformer layers that mmFormer and M2FTrans share.

Source: Zhang et al., MICCAI 2022 (mmFormer); Shi et al., JBHI 2024 (M2FTrans); in the variants released with PASSION.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Multi-head self-attention with one bias-free projection; dropout on the attention weights and the output."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads: expected a divisor of a token's {dim} channels (key `heads`).")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.weight_dropout, self.dropout = nn.Dropout(dropout), nn.Dropout(dropout)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """Project tokens ``(B, N, dim)`` to queries, keys and values: ``(3, B, heads, N, dim / heads)``."""
        batch, tokens, _ = x.shape
        return self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the attention output ``(B, N, heads * d)`` for each query ``(B, heads, N, d)``, projected."""
        p = self.weight_dropout.p if self.training else 0.0
        return self.join(F.scaled_dot_product_attention(query, key, value, dropout_p=p))

    def join(self, found: torch.Tensor) -> torch.Tensor:
        """Concatenate the heads' outputs ``(B, heads, N, d)`` and project them: ``(B, N, heads * d)``."""
        return self.dropout(self.proj(found.transpose(1, 2).flatten(2)))


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``, with GELU and dropout.

    Dropout is applied in `Attention`, and at two places in the perceptron.
    """

    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim), nn.Dropout(dropout)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens ``(B, N, dim)`` to the same shape."""
        x = x + self.attention.attend(*self.attention.split(self.norm1(x)))
        return self.refined(x)

    def refined(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the layer's second half, ``x + mlp(norm(x))``."""
        return x + self.mlp(self.norm2(x))
