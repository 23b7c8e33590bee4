"""A small multilayer perceptron on a table, missing values included."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fl.models.layers import head, perceptron
from fl.models.requirements import probability, require_table, widths
from fl.models.table_preprocessing import table_preprocessing
from fl.signature import Signature


def build(signature: Signature, *, hidden: Sequence[int] = (32, 32), dropout: float = 0.0) -> nn.Module:
    """(N, columns), NaN where a value is missing -> (N, num_outputs) logits, or a prediction in the target's unit."""
    require_table(signature, model="table_mlp")
    preprocessing = table_preprocessing(signature)
    rate = probability(dropout, key="model.dropout")
    layers = perceptron(preprocessing.num_outputs, widths(hidden), signature.num_outputs, rate)
    return nn.Sequential(preprocessing, *layers, *head(signature))
