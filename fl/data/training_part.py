"""What a client does to its training part before it trains; every other part stays as it is.

    recipe    rows that the data set's recipe drops            once, by the rows themselves
    denoise   rows or specks that are noise                    once, by the rows themselves
    balance   classes made equal                               drawn anew in each round
    augment   examples varied                                  drawn anew in each round

What is drawn has the address (seed, purpose, round, client): the same bits wherever the client trains. What a client
weighs is how many rows are left after the first two; a row that is drawn twice does not count twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fl.data.augment import augment, read_augment
from fl.data.balance import BALANCES, balanced_rows, class_weights
from fl.data.dataset import Examples
from fl.data.denoise import DENOISERS, edited, edited_numbers, median_filtered
from fl.data.written_steps import Entry
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator
from fl.signature import Signature
from fl.transforms.recipe import Recipe


@dataclass(frozen=True)
class Treatment:
    """How the training parts of data of this ``signature`` are treated; raises BadInput for what does not suit them."""

    signature: Signature
    denoise: str | None = None
    balance: str | None = None
    augment: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        task, images = self.signature.task, len(self.signature.input_shape) == 3
        for key, got, allowed in (("denoise", self.denoise, DENOISERS), ("balance", self.balance, BALANCES)):
            if got not in (None, *allowed):
                raise BadInput(key=f"client.{key}", got=got, allowed=f"{', '.join(allowed)}, or null")
        if self.balance and task != "classification":
            raise BadInput(key="client.balance", got=self.balance, allowed=f"null for a {task}: it needs classes")
        if self.denoise == "neighbours" and task == "next_token":
            raise BadInput(key="client.denoise", got=self.denoise, allowed="null for text: it has no near and far")
        if self.denoise == "median" and not images:
            raise BadInput(key="client.denoise", got="median", allowed="neighbours, or null: these are no images")
        if self.augment and task == "next_token":
            raise BadInput(key="client.augment", got=self.augment[0][0], allowed="null for text")
        # On no example at all, for the errors that only the data's shape can tell.
        self.drawn(_nothing(self.signature), seed=0, round=0, client=0, purpose="train")

    @property
    def lasts(self) -> bool:
        """Whether ``kept`` is anything but the part itself."""
        return self.denoise is not None or drops_rows(self.signature)

    @property
    def why_one_by_one(self) -> str | None:
        """Why a client must train by itself, in words; None where others may train with it."""
        return "client.balance=weights weighs every example by itself" if self.balance == "weights" else None

    def kept(self, part: Examples) -> Examples:
        """What is left of a training part in every round."""
        part = kept(part, self.signature)
        if self.denoise == "neighbours":
            recipe = _recipe(self.signature.recipe) if self.signature.recipe else None
            keep = edited_numbers if self.signature.task == "regression" else edited
            return part.take(keep(recipe.values(part.x) if recipe else part.x, part.y))
        return Examples(median_filtered(part.x), part.y) if self.denoise == "median" else part

    def drawn(self, part: Examples, *, seed: int, round: int, client: int, purpose: str) -> Examples:
        """What a client trains on in a round, of what is kept of its training part."""

        def draw(what: str) -> Any:
            return generator(seed, purpose=f"{purpose}/{what}", round=round, client=client)

        if self.balance in ("oversample", "undersample") and len(part):
            part = part.take(balanced_rows(part.y, self.balance, draw("balance")))
        return augment(part, self.augment, self.signature, lambda i: draw(f"augment/{i}"))

    def weights(self, y: Array) -> Array | None:
        """What each example's loss is multiplied by, (n,); None: nothing."""
        return class_weights(y) if self.balance == "weights" else None


def read_treatment(client: Mapping[str, Any], signature: Signature) -> Treatment:
    """The treatment that the settings of the section ``client`` ask for."""
    steps = tuple(read_augment(client.get("augment")))
    return Treatment(signature, client.get("denoise"), client.get("balance"), steps)


def kept(part: Examples, signature: Signature) -> Examples:
    """``part`` less the rows that the recipe of ``signature`` drops; itself where it drops none.

    The rows are chosen by what they hold and by those beside them, and by nothing that is drawn.
    """
    return part.take(_recipe(signature.recipe).kept(part.x, part.y)) if drops_rows(signature) else part


def drops_rows(signature: Signature) -> bool:
    """Whether the recipe of ``signature`` drops rows."""
    return bool(signature.recipe) and _recipe(signature.recipe).drops_rows


def _nothing(signature: Signature) -> Examples:
    return Examples(np.zeros((0, *signature.input_shape), np.float32), np.zeros(0, np.int64))


@lru_cache(maxsize=4)
def _recipe(text: str) -> Recipe:
    return Recipe.from_json(text)
