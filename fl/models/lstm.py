"""LEAF's character model (Caldas et al., 2018): an embedding of 8, two LSTM layers of 256, a linear layer.

LEAF predicts the one character after 80; here every position predicts its next one, which gives 80 times the signal
for the same work. 819,920 parameters with LEAF's vocabulary of 80.
"""

from __future__ import annotations

from torch import Tensor, nn

from fl.models.requirements import positive, require_tokens
from fl.signature import Signature


class EveryPosition(nn.LSTM):
    """An LSTM that returns its output at every position, (N, T, hidden), and drops the final state."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(N, T, features) -> (N, T, hidden), from a state of zeros."""
        outputs: Tensor = super().forward(x)[0]
        return outputs


def build(signature: Signature, *, embedding: int = 8, hidden: int = 256, layers: int = 2) -> nn.Module:
    """Tokens (N, T) -> logits (N, T, num_outputs) of the next token at every position."""
    require_tokens(signature, model="lstm")
    width = positive(hidden, key="model.hidden")
    features = positive(embedding, key="model.embedding")
    return nn.Sequential(
        nn.Embedding(signature.num_outputs, features),
        EveryPosition(features, width, num_layers=positive(layers, key="model.layers"), batch_first=True),
        nn.Linear(width, signature.num_outputs),
    )
