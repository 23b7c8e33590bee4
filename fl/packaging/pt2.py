"""pt2: torch.export's archive, the model as a graph with its parameters; read by torch 2.x in Python or C++."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fl.models.evaluate import one_thread
from fl.packaging.metadata import KEY, to_text
from fl.packaging.predict import Predict, as_tensor
from fl.packaging.quiet import quiet
from fl.parameters import Array
from fl.untrusted import refuse_objectionable


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """``example`` (at least two inputs) is traced and stored in the archive, so it must not be anybody's data.

    The first dimension stays free. The module must be in evaluation mode; it may be altered, so hand over a copy.
    """
    with quiet():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        for graph in program.graph_module.modules():
            _forget_sources(graph)
        torch.export.save(program, path, extra_files={f"{KEY}.json": to_text(metadata)})


def read(path: Path) -> Predict:
    """The graph as a function. Raises CorruptFile for an archive that would run code while it is loaded."""
    refuse_objectionable(path)
    with quiet():
        module = torch.export.load(path).module()

    def predict(inputs: Array) -> Array:
        with one_thread(), torch.no_grad():  # the graph knows no modes: it was traced in evaluation mode
            outputs: Array = module(as_tensor(inputs)).numpy()
        return outputs

    return predict


def _forget_sources(graph: nn.Module) -> None:
    """Drop the lines of code that made each node: they name folders of the machine that exported."""
    if isinstance(graph, torch.fx.GraphModule):
        for node in graph.graph.nodes:
            node.meta.pop("stack_trace", None)
