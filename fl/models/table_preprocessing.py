"""The first layer of a table model: missing values filled and marked, columns standardised.

It lives inside the model, and so inside every export: whoever has the model needs no second file to use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fl.errors import BadInput
from fl.models.layers import float_dtype
from fl.models.recipe_preprocessing import RecipePreprocessing
from fl.signature import Signature


def table_preprocessing(signature: Signature) -> TablePreprocessing | RecipePreprocessing:
    """The first layer of a model of this table: the data set's recipe, or the standard one."""
    return RecipePreprocessing(signature) if signature.recipe else TablePreprocessing(signature)


class TablePreprocessing(nn.Module):
    """NaN -> the column's median; then (x - mean) / std; then a 0/1 column "was missing" for each indicator.

    The statistics come from the signature. They are buffers that stay out of the state dict: the server does not
    average them, and a version finds them in its signature. A column whose std is 0 is only centred. Empty statistics
    leave their step out.
    """

    medians: Tensor
    mean: Tensor
    std: Tensor
    indicators: Tensor

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        (columns,) = signature.input_shape
        dtype = float_dtype(signature)
        std = [s or 1.0 for s in signature.feature_std]
        for name, values, missing in (
            ("medians", signature.medians, math.nan),
            ("mean", signature.feature_mean, 0.0),
            ("std", std, 1.0),
        ):
            column = _column(name, values, columns, missing)
            self.register_buffer(name, torch.tensor(column, dtype=dtype), persistent=False)
        outside = [i for i in signature.indicators if not 0 <= i < columns]
        if outside:
            raise BadInput(key="dataset", got=f"an indicator for column {outside[0]}", allowed=f"0 to {columns - 1}")
        indicators = torch.tensor(signature.indicators, dtype=torch.int64)
        self.register_buffer("indicators", indicators, persistent=False)
        self.num_outputs = columns + len(signature.indicators)
        """Width of what comes out: the columns, then the indicators."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., columns) with NaN where a value is missing -> (..., num_outputs)."""
        missing = x.isnan()
        filled = (torch.where(missing, self.medians, x) - self.mean) / self.std
        if not self.indicators.numel():
            return filled
        return torch.cat([filled, missing.index_select(-1, self.indicators).to(filled.dtype)], dim=-1)


def _column(name: str, values: Sequence[float], columns: int, missing: float) -> list[float]:
    """``values``, or ``columns`` times ``missing`` where there are none."""
    if not values:
        return [missing] * columns
    if len(values) != columns or not all(math.isfinite(v) for v in values):
        allowed = f"{columns} finite numbers, one a column, or none"
        raise BadInput(key="dataset", got=f"{name} of the columns: {list(values)}", allowed=allowed)
    return list(values)
