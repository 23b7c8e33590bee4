"""The recipe of a data set as the first layer of a model: so every export of the model holds it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fl.errors import BadInput
from fl.signature import Signature
from fl.transforms.arithmetic import Arithmetic
from fl.transforms.recipe import Recipe


def _number(value: float) -> Tensor:
    """One element, and no scalar: see ``Arithmetic``."""
    return torch.tensor([value], dtype=torch.float64)


TORCH = Arithmetic(torch.where, torch.isnan, torch.floor, _number)


class RecipePreprocessing(nn.Module):
    """Columns of a table -> features, to the bit those of ``Recipe.apply``. It has no parameters and no buffers."""

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        recipe = Recipe.from_json(signature.recipe)
        (columns,) = signature.input_shape
        if len(recipe.inputs) != columns or recipe.dtype != signature.input_dtype:
            allowed = f"{columns} columns of {signature.input_dtype}, as in the data"
            raise BadInput(
                key="dataset.recipe", got=f"a recipe of {len(recipe.inputs)} of {recipe.dtype}", allowed=allowed
            )
        self.recipe = recipe
        self.num_outputs = len(recipe.features)
        """Width of what comes out."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., columns) -> (..., num_outputs)."""
        if x.dim() != 2:
            return self.forward(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.num_outputs)
        found = self.recipe.compute(x.double().unbind(-1), TORCH)
        return torch.stack(list(found.values()), dim=-1).to(x.dtype)
