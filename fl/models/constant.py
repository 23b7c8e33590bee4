"""The trivial baseline: the same answer whatever the input. Trained, it says how frequent each class is, or the mean.

What does no better than this has learnt nothing from its inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fl.models.layers import float_dtype, head
from fl.signature import Signature


class Constant(nn.Module):
    """(N, ...) -> (N, num_outputs), or (N, T, num_outputs) for tokens: one trained answer."""

    def __init__(self, num_outputs: int, *, positions: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.zeros(num_outputs, dtype=dtype))
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        """Nothing of ``x`` but how many examples, and positions, there are."""
        if self.positions:
            return self.answer.expand(*x.shape[:2], len(self.answer))
        # A zero times each input: whoever asks for the gradient by the inputs is told that it is zero.
        return self.answer + (0.0 * torch.nan_to_num(x)).flatten(1).sum(dim=1, keepdim=True)


def build(signature: Signature) -> nn.Module:
    """(N, *input_shape) -> (N, num_outputs) logits that depend on nothing."""
    tokens = signature.task == "next_token"
    constant = Constant(signature.num_outputs, positions=tokens, dtype=float_dtype(signature))
    return nn.Sequential(constant, *head(signature))
