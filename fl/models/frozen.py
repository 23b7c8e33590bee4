"""Layers that keep what they have: transfer trains the rest of a model that learnt something before.

A pattern is of array names, as a shell's: ``conv*``, ``0.*``, ``*.bias``. Whatever matches, running statistics too,
keeps its bits in every version, whatever strategy combines the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from fl.errors import BadInput
from fl.models.arrays import GrowingModule

KEY = "client.frozen"


def freeze(module: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Take what matches one of ``patterns`` out of training, in place; the names of these arrays, in the model's order.

    Raises BadInput for a pattern that matches nothing, where nothing is left to train, and for a model that grows.
    """
    if not patterns:
        return ()
    if isinstance(module, GrowingModule):
        raise BadInput(key=KEY, got=", ".join(patterns), allowed="nothing for a model that grows: it has no layers")
    names = list(module.state_dict())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise BadInput(key=KEY, got=pattern, allowed=f"patterns of the model's arrays: {', '.join(names)}")
    frozen = {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise BadInput(key=KEY, got=", ".join(patterns), allowed="patterns that leave something to train")
    return tuple(name for name in names if name in frozen)
