"""A small causal transformer for the next token (Vaswani et al., 2017; normalised first, as in GPT-2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl.errors import BadInput
from fl.models.layers import dropouts
from fl.models.requirements import positive, probability, require_tokens
from fl.signature import Signature

EMBEDDING_STD = 0.02  # GPT-2's


class TokensAndPositions(nn.Module):
    """The sum of a learned vector a token and a learned vector a position."""

    positions: Tensor

    def __init__(self, num_tokens: int, length: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(num_tokens, width)
        self.position = nn.Embedding(length, width)
        self.register_buffer("positions", torch.arange(length), persistent=False)
        for embedding in (self.token, self.position):
            nn.init.normal_(embedding.weight, std=EMBEDDING_STD)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T) -> (N, T, width)."""
        embedded: Tensor = self.token(tokens) + self.position(self.positions)
        return embedded


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position sees itself and what came before: softmax(q k' / sqrt(d)) v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, T, width)."""
        query, key, value = (self._split(part) for part in self.query_key_value(x).chunk(3, dim=-1))
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.out(seen.transpose(-2, -3).flatten(-2))
        return mixed

    def _split(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, heads, T, width / heads)."""
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
        return heads


class Residual(nn.Module):
    """``x + inner(x)``."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        summed: Tensor = x + self.inner(x)
        return summed


def build(
    signature: Signature, *, width: int = 128, heads: int = 4, layers: int = 2, dropout: float = 0.0
) -> nn.Module:
    """Tokens (N, T) -> logits (N, T, num_outputs) of the next token at every position; T is the signature's own."""
    require_tokens(signature, model="transformer")
    for key, value in {"width": width, "heads": heads, "layers": layers}.items():
        positive(value, key=f"model.{key}")
    if width % heads:
        raise BadInput(key="model.heads", got=heads, allowed=f"a divisor of model.width, {width}")
    rate = probability(dropout, key="model.dropout")
    blocks: list[nn.Module] = []
    for _ in range(layers):
        expand, shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        blocks.append(Residual(nn.LayerNorm(width), CausalSelfAttention(width, heads), *dropouts(rate)))
        blocks.append(Residual(nn.LayerNorm(width), expand, nn.GELU(), shrink, *dropouts(rate)))
    return nn.Sequential(
        TokensAndPositions(signature.num_outputs, signature.input_shape[0], width),
        *blocks,
        nn.LayerNorm(width),
        nn.Linear(width, signature.num_outputs),
    )
