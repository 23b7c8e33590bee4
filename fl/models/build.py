"""A model from its dotted name: built under its own seed, and proved to fit the data before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fl.errors import BadInput
from fl.models.arrays import GrowingModule
from fl.models.evaluate import evaluating, one_thread
from fl.models.imports import find
from fl.models.recipe_preprocessing import RecipePreprocessing
from fl.seeds import process_wide
from fl.signature import Signature

PROBE_EXAMPLES = 2
DTYPES = (torch.float32, torch.float64)


def build_model(*, target: str, arguments: Mapping[str, Any], signature: Signature, seed: int) -> nn.Module:
    """Call ``target`` and check what it gives; the same seed gives the same bits.

    target      "fl.models.mlp.build", or any importable function or class that gives a torch.nn.Module
    arguments   passed by name. ``signature``, ``input_shape``, ``num_classes`` and ``num_outputs`` are filled in where
                the target has a parameter of that name and ``arguments`` has none

    The module comes back in training mode, in float64 where the signature's inputs are. Raises BadInput with the key
    ``model._target_``, ``model.<argument>`` or ``model``; since nothing else is touched, calling this is also how a
    run checks its model before it starts.
    """
    factory = find(target)
    given = _complete(factory, target, arguments, signature)
    with process_wide(seed, purpose="model"), one_thread():
        try:
            module = factory(**given)
        except BadInput:
            raise
        except Exception as error:
            raise _raised(target, error) from error
        if not isinstance(module, nn.Module):
            got = f"{target}, which gave {type(module).__name__}"
            raise BadInput(key="model._target_", got=got, allowed="a function or class that gives a torch.nn.Module")
        if signature.input_dtype == "float64":
            module = module.double()
        check_fits(module, signature, name=target)
    if signature.recipe and not any(isinstance(layer, RecipePreprocessing) for layer in module.modules()):
        allowed = "a model that applies it: table_mlp, logistic, or one of fl.models.recipe_preprocessing's layer"
        raise BadInput(key="dataset.recipe", got=f"a recipe for {target}, which knows none", allowed=allowed)
    return module


def check_fits(module: nn.Module, signature: Signature, *, name: str) -> None:
    """Raise BadInput unless the module takes a batch of the signature's inputs and answers in the task's shape.

    One forward pass over two examples of zeros in evaluation mode. ``name`` is what the message calls the model.
    """
    inputs = torch.zeros((PROBE_EXAMPLES, *signature.input_shape), dtype=getattr(torch, signature.input_dtype))
    with evaluating(module):
        try:
            outputs = module(inputs)
        except Exception as error:
            takes = f"a model that takes {signature.input_dtype} inputs of shape (N, {_text(signature.input_shape)})"
            got = f"{name}, which raised {type(error).__name__}: {error}"
            raise BadInput(key="model", got=got, allowed=takes) from error
    shapes = _OUTPUT_SHAPES[signature.task](signature)
    allowed = " or ".join(f"(N, {_text(shape)})" if shape else "(N,)" for shape in shapes)
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        what = str(outputs.dtype) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise BadInput(key="model", got=f"{name}, which gave {what}", allowed=f"one floating-point tensor {allowed}")
    if tuple(outputs.shape) not in [(PROBE_EXAMPLES, *shape) for shape in shapes]:
        got = f"{name} with outputs of shape (N, {_text(outputs.shape[1:])})"
        raise BadInput(key="model", got=got, allowed=f"{allowed} for this data set's {signature.task}")
    _check_parameters(module, name)


def _check_parameters(module: nn.Module, name: str) -> None:
    if not isinstance(module, GrowingModule) and not any(p.requires_grad for p in module.parameters()):
        raise BadInput(key="model", got=f"{name}, which has no parameter to train", allowed="at least one parameter")
    for array, value in module.state_dict().items():
        if not isinstance(value, Tensor) or (value.is_floating_point() and value.dtype not in DTYPES):
            what = value.dtype if isinstance(value, Tensor) else type(value).__name__
            got = f"{name}, whose state {array!r} is {what}"
            raise BadInput(key="model", got=got, allowed="tensors of float32, float64 or whole numbers")


def _complete(
    factory: Callable[..., Any], target: str, arguments: Mapping[str, Any], signature: Signature
) -> dict[str, Any]:
    """``arguments`` with what the signature can fill in; BadInput for one too many or one too few."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # a builtin that does not say what it takes
        return dict(arguments)
    named = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    filled = {
        "signature": signature,
        "input_shape": signature.input_shape,
        "num_classes": signature.num_outputs,
        "num_outputs": signature.num_outputs,
    }
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    options = ", ".join(sorted(named.keys() - {"signature"})) or "no options"
    for name, value in arguments.items():
        if name not in named and not takes_any:
            raise BadInput(key=f"model.{name}", got=value, allowed=f"only what {target} takes: {options}")
    given = {name: value for name, value in filled.items() if name in named} | dict(arguments)
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in given:
            raise BadInput(key=f"model.{name}", got="nothing", allowed=f"a value, because {target} needs one")
    return given


def _raised(target: str, error: Exception) -> BadInput:
    got = f"{target}, which raised {type(error).__name__}: {error}"
    return BadInput(key="model", got=got, allowed="arguments with which the model can be built")


def _text(shape: tuple[int, ...]) -> str:
    return ", ".join(str(side) for side in shape)


_OUTPUT_SHAPES: dict[str, Callable[[Signature], list[tuple[int, ...]]]] = {
    "classification": lambda signature: [(signature.num_outputs,)],
    "next_token": lambda signature: [(*signature.input_shape, signature.num_outputs)],
    "regression": lambda _: [(), (1,)],
}
"""Shapes that an example's output may have, a task."""
