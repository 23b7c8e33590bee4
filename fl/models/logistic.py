"""Logistic regression on a table, missing values included. With a regression target, linear regression."""

from __future__ import annotations

from torch import nn

from fl.models.layers import head
from fl.models.requirements import require_table
from fl.models.table_preprocessing import table_preprocessing
from fl.signature import Signature


def build(signature: Signature) -> nn.Module:
    """(N, columns), NaN where a value is missing -> (N, num_outputs) logits, or a prediction in the target's unit."""
    require_table(signature, model="logistic")
    preprocessing = table_preprocessing(signature)
    linear = nn.Linear(preprocessing.num_outputs, signature.num_outputs)
    return nn.Sequential(preprocessing, linear, *head(signature))
