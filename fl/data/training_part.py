"""Which of a training part's rows are trained on. Every other part, and every row that is asked about, keeps all."""

from __future__ import annotations

from functools import lru_cache

from fl.data.dataset import Examples
from fl.signature import Signature
from fl.transforms.recipe import Recipe


def kept(part: Examples, signature: Signature) -> Examples:
    """``part`` less the rows that the recipe of ``signature`` drops; itself where it drops none.

    The rows are chosen by what they hold and by those beside them, and by nothing that is drawn.
    """
    return part.take(_recipe(signature.recipe).kept(part.x, part.y)) if drops_rows(signature) else part


def drops_rows(signature: Signature) -> bool:
    """Whether the recipe of ``signature`` drops rows."""
    return bool(signature.recipe) and _recipe(signature.recipe).drops_rows


@lru_cache(maxsize=4)
def _recipe(text: str) -> Recipe:
    return Recipe.from_json(text)
