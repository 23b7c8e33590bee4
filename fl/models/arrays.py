"""Between torch and NumPy: the parameters of a module, the inputs and targets of a data set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fl.errors import BadInput
from fl.models.layers import float_dtype
from fl.parameters import Array, Parameters, mismatch
from fl.signature import Signature


class GrowingModule(nn.Module):
    """A module whose arrays change their shapes from version to version, and which no gradient trains."""

    def load_arrays(self, parameters: Mapping[str, Array]) -> None:
        """Take ``parameters`` as they come; BadInput if they are not of this kind of model."""
        raise TypeError("an abstract module")

    def why_not(self, parameters: Mapping[str, Array]) -> str | None:
        """What keeps ``parameters`` from being of this kind of model, in words; None if nothing does."""
        raise TypeError("an abstract module")


def parameters_of(module: nn.Module, *, views: bool = False) -> Parameters:
    """Trained parameters and persistent buffers by name, in the module's own order.

    Copies, unless ``views``: then the arrays share memory with the module and change with it.
    """
    tensors: dict[str, Tensor] = module.state_dict()
    return {
        name: tensor.numpy(force=True) if views else np.array(tensor.numpy(force=True), order="C")
        for name, tensor in tensors.items()
    }


def load_parameters(module: nn.Module, parameters: Mapping[str, Array]) -> None:
    """Copy ``parameters`` into the module, in place; optimisers and views of its tensors stay valid.

    Raises BadInput, naming the array, unless names, shapes and dtypes are the module's own; nothing is copied then.
    """
    if isinstance(module, GrowingModule):
        module.load_arrays(parameters)
        return
    tensors: dict[str, Tensor] = module.state_dict()
    difference = mismatch(parameters, {name: tensor.numpy(force=True) for name, tensor in tensors.items()})
    if difference:
        raise BadInput(key="model", got=difference, allowed="the model that the parameters were made with")
    for name, tensor in tensors.items():
        tensor.copy_(_tensor(parameters[name]))


def trainable_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that training moves, in the module's order; a shared tensor once, by its first name."""
    return tuple(name for name, parameter in module.named_parameters() if parameter.requires_grad)


def to_inputs(x: Array, signature: Signature, *, owned: bool = False) -> Tensor:
    """Stored examples (N, ...) -> what a model takes: (N, *input_shape) in input_dtype, times input_scale.

    ``x`` may be memory-mapped and read-only; the result never shares memory with it, unless it is ``owned``: the caller
    needs it no more. Raises ValueError if the examples cannot be given the input shape.
    """
    dtype: torch.dtype = getattr(torch, signature.input_dtype)
    inputs = _tensor(x.reshape(len(x), *signature.input_shape)).to(dtype, copy=not owned)
    return inputs if signature.input_scale == 1.0 else inputs.mul_(signature.input_scale)


def laid_out(inputs: Tensor) -> Tensor:
    """A batch as convolutions and pooling on a CPU like it best: images (N, C, H, W) in channels_last, others as is.

    Of one channel both layouts are the same memory, and torch takes it for the other one unless its strides say so.
    """
    if inputs.dim() != 4:
        return inputs
    found, (_, channels, height, width) = inputs.contiguous(memory_format=torch.channels_last), inputs.shape
    return found.as_strided(found.shape, (height * width, 1, width, 1)) if channels == 1 else found


def to_targets(y: Array, signature: Signature) -> Tensor:
    """Stored targets -> int64 classes (N,) or tokens (N, T), or for a regression floating-point numbers (N,)."""
    if signature.task == "regression":
        return _tensor(y.reshape(len(y))).to(float_dtype(signature), copy=True)
    return _tensor(y).to(torch.int64, copy=True)


def _tensor(array: Array) -> Tensor:
    """A tensor on the array's own memory where that is writable; torch warns about any other, so that is copied."""
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else np.array(array, order="C"))
