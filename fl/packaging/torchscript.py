"""TorchScript: torch's older archive of a program with its parameters, for what cannot read pt2 yet.

torch 2.13 has deprecated it, so it is offered with a warning.
"""

from __future__ import annotations

import re
import zipfile
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

WARNING = "torchscript is deprecated in torch 2.13; pt2 is what follows it"


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """``example`` (at least two inputs) is traced: steps that depend on the numbers are not expressed by that."""
    with quiet():
        torch.jit.trace(module, (example,))  # torch numbers classes whose names are taken: from here on all of them are
        traced = torch.jit.trace(module, (example,))
        torch.jit.save(traced, path, _extra_files={f"{KEY}.json": to_text(metadata)})
    _forget_sources_and_numbers(path)


def read(path: Path) -> Predict:
    """The program as a function. Raises CorruptFile for one that runs while it is loaded."""
    refuse_objectionable(path)
    with quiet():
        module = torch.jit.load(path)

    def predict(inputs: Array) -> Array:
        with one_thread(), torch.no_grad(), quiet():
            outputs: Array = module(as_tensor(inputs)).numpy()
        return outputs

    return predict


def _forget_sources_and_numbers(path: Path) -> None:
    """Leave out the lines of code that made each operation, which name folders of the machine that exported, and an id
    that is drawn from names; number classes from 0, whatever the process has traced before. Then the same model gives
    the same bytes.
    """
    with zipfile.ZipFile(path) as archive:
        entries = [
            (entry, archive.read(entry))
            for entry in archive.infolist()
            if not entry.filename.endswith((".debug_pkl", "/serialization_id"))
            and "/traced_inputs" not in entry.filename
        ]
    texts = [entry.filename.encode() for entry, _ in entries] + [content for e, content in entries if _is_text(e)]
    numbers = sorted({int(found) for text in texts for found in _NUMBERED.findall(text)})

    def renumbered(text: bytes) -> bytes:
        return _NUMBERED.sub(lambda found: b"___torch_mangle_%d" % numbers.index(int(found[1])), text)

    renamed = {
        renumbered(old.filename.encode()).decode(): (old, renumbered(content) if _is_text(old) else content)
        for old, content in entries
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, (old, content) in sorted(renamed.items()):
            entry = zipfile.ZipInfo(name)  # with zip's first day as its date
            entry.compress_type = old.compress_type
            archive.writestr(entry, content)


_NUMBERED = re.compile(rb"___torch_mangle_(\d+)")


def _is_text(entry: zipfile.ZipInfo) -> bool:
    """Whether names of classes stand in it; in the pickles they end with a line, and have no length before them."""
    return entry.filename.endswith((".py", ".pkl"))
