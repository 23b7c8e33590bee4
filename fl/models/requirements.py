"""What a build function asks of a data set and of its own options, as errors that name the key."""

from __future__ import annotations

from collections.abc import Sequence

from fl.errors import BadInput
from fl.signature import Signature


def require_numbers(signature: Signature, *, model: str, missing: bool = False) -> None:
    """Refuse tokens, and unless ``missing`` tables with missing values: ``model`` takes numbers of any shape."""
    if signature.input_dtype == "int64" or signature.task == "next_token":
        raise BadInput(key="model", got=f"{model} for tokens", allowed="lstm or transformer")
    if not missing and (signature.medians or signature.indicators):
        raise BadInput(
            key="model", got=f"{model} for a table with missing values", allowed="logistic, table_mlp or xgboost"
        )


def require_images(signature: Signature, *, model: str, smallest: int) -> None:
    """Ask for images (channels, height, width) of at least ``smallest`` pixels a side."""
    shape = signature.input_shape
    is_image = len(shape) == 3 and min(shape[1:]) >= smallest and signature.input_dtype != "int64"
    if not is_image or signature.task == "next_token":
        allowed = f"inputs of shape (channels, height, width), both sides at least {smallest}; or another model"
        raise BadInput(key="model", got=f"{model} for inputs of shape {shape}", allowed=allowed)


def require_table(signature: Signature, *, model: str) -> None:
    """Ask for a table: rows of floating-point columns, and a statistic for each column or for none."""
    shape = signature.input_shape
    if len(shape) != 1 or signature.input_dtype == "int64" or signature.task == "next_token":
        got = f"{model} for {signature.input_dtype} inputs of shape {shape}"
        raise BadInput(key="model", got=got, allowed="a table, that is inputs of shape (columns,); or another model")


def require_tokens(signature: Signature, *, model: str) -> None:
    """Ask for sequences of tokens with the task next_token."""
    if signature.task != "next_token" or signature.input_dtype != "int64" or len(signature.input_shape) != 1:
        got = f"{model} for {signature.task} of {signature.input_dtype} inputs of shape {signature.input_shape}"
        raise BadInput(key="model", got=got, allowed="sequences of tokens with the task next_token; or another model")


def widths(hidden: object) -> tuple[int, ...]:
    """The widths of hidden layers, one a layer; whole numbers above 0. Empty: no hidden layer."""
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise BadInput(key="model.hidden", got=hidden, allowed="a list of whole numbers above 0, one a layer")
    return tuple(positive(width, key="model.hidden") for width in hidden)


def positive(value: object, *, key: str) -> int:
    """``value``, if it is a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(key=key, got=value, allowed="whole numbers above 0")
    return value


def probability(value: object, *, key: str) -> float:
    """``value``, if it is in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise BadInput(key=key, got=value, allowed="a number from 0 up to, not including, 1")
    return float(value)
