"""safetensors: the trained parameters alone, without code. Whoever reads them has to build the model first."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save
from torch import Tensor, nn

from fl.models.arrays import load_parameters, parameters_of
from fl.models.evaluate import outputs_of
from fl.packaging.metadata import KEY, to_text
from fl.packaging.predict import Predict, as_tensor


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Every array of the state dict by its name. ``example`` is not needed: no computation is stored."""
    path.write_bytes(save(parameters_of(module), metadata={KEY: to_text(metadata)}))


def read(path: Path, module: nn.Module) -> Predict:
    """A copy of ``module`` that holds what the file holds; BadInput if an array is missing or does not fit."""
    filled = copy.deepcopy(module)
    load_parameters(filled, load_file(path))
    return lambda inputs: outputs_of(filled, [as_tensor(inputs)])
