"""Export: write a model in several formats, and call a file done only after its own reader agrees with the model."""

from __future__ import annotations

import copy
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fl.errors import BadInput, MissingExtra
from fl.files import sha256_file, sync_folder, writable_folder, write_json
from fl.models.arrays import load_parameters, to_inputs
from fl.models.evaluate import outputs_of
from fl.packaging import (
    c_source,
    executorch,
    onnx,
    onnx_int8,
    pfa,
    pmml,
    pt2,
    pyz,
    safetensors,
    speed,
    torchscript,
    wheel,
)
from fl.packaging.predict import Predict
from fl.parameters import Array
from fl.signature import Signature

KEY = "--format"


class Write(Protocol):
    """Store a module that is in evaluation mode and may be altered; ``example`` is a batch of two, not private."""

    def __call__(self, module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Format:
    """One export format: a pair of functions and what is asked of them.

    suffix      of the file
    write, read a reader also gets the module, for formats that hold no computation
    tolerance   largest difference allowed to the model in float32, relative to the largest output (at least 1)
    packages    that must be there, from the extra ``extra``
    check       raises BadInput, before anything is written, for a model that the format cannot express
    examples    at most so many are compared, where the reader is slow
    answers     what the file says where the model says outputs; the same, if the format can say it
    naming      the file's name, from the name that was asked for and the suffix
    warning     what whoever asks for it should know
    lossy       it answers a little differently by design: what the model was measured at does not hold for the file
    """

    suffix: str
    write: Write
    read: Callable[[Path, nn.Module], Predict]
    tolerance: float
    packages: tuple[str, ...] = ()
    extra: str = "export"
    check: Callable[[nn.Module, Signature], None] = lambda module, signature: None
    examples: int = 2**31
    answers: Callable[[Array, Signature], Array] = lambda outputs, signature: outputs
    naming: Callable[[str, str], str] = "{}.{}".format
    warning: str = ""
    lossy: bool = False


FORMATS: dict[str, Format] = {
    "safetensors": Format("safetensors", safetensors.write, safetensors.read, tolerance=0.0),
    "pt2": Format("pt2", pt2.write, lambda path, _: pt2.read(path), tolerance=1e-6),
    "onnx": Format(
        "onnx",
        onnx.write,
        lambda path, _: onnx.read(path),
        tolerance=1e-5,  # other kernels, other orders of summation
        packages=("onnx", "onnxscript", "onnxruntime"),
    ),
    "onnx_int8": Format(
        "int8.onnx",
        onnx_int8.write,
        lambda path, _: onnx.read(path),
        tolerance=0.1,  # a weight is off by up to 1/255 of its channel's range, and so is an activation
        packages=("onnx", "onnxscript", "onnxruntime"),
        lossy=True,
    ),
    "torchscript": Format(
        "pt",
        torchscript.write,
        lambda path, _: torchscript.read(path),
        tolerance=1e-6,
        warning=torchscript.WARNING,
    ),
    "executorch": Format(
        "pte",
        executorch.write,
        lambda path, _: executorch.read(path),
        tolerance=1e-5,  # other kernels
        packages=("executorch",),
        extra="edge",
        examples=100,  # on portable kernels an LSTM takes .2 s for one
    ),
    "c": Format(
        "c",
        c_source.write,
        lambda path, _: c_source.read(path),
        tolerance=1e-5,  # sums in another order
        check=c_source.check,
        examples=200,
    ),
    "whl": Format(
        "whl",
        wheel.write,
        lambda path, _: wheel.read(path),
        tolerance=1e-5,
        check=wheel.check,
        examples=1000,
        naming=wheel.file_name,
    ),
    "pyz": Format(
        "pyz",
        pyz.write,
        lambda path, _: pyz.read(path),
        tolerance=1e-5,
        check=pyz.check,
        examples=50,
    ),
    "pmml": Format(
        "pmml",
        pmml.write,
        lambda path, _: pmml.read(path),
        tolerance=1e-5,
        packages=("pypmml",),
        extra="pmml",
        check=pmml.check,
        examples=200,
        answers=pmml.probabilities,
    ),
    "pfa": Format(
        "pfa",
        pfa.write,
        lambda path, _: pfa.read(path),
        tolerance=1e-5,
        packages=("titus",),
        extra="pfa",
        check=pfa.check,
        examples=50,
    ),
}
"""By the name that the user writes after --format."""


@dataclass(frozen=True)
class Exported:
    """A file that was proved: ``largest_difference`` of any output, over so many ``examples``, to the model's own.

    ``load_seconds`` and ``row_seconds`` of its reader (fl/packaging/speed.py) where they were asked for; no file holds
    what was measured.
    """

    format: str
    path: Path
    bytes: int
    largest_difference: float
    tolerance: float
    examples: int
    load_seconds: float | None = None
    row_seconds: float | None = None


def export(
    module: nn.Module,
    *,
    signature: Signature,
    parameters: Mapping[str, Array],
    examples: Array,
    formats: Sequence[str],
    output: Path,
    name: str,
    manifest: Mapping[str, Any],
    measure: bool = False,
) -> list[Exported]:
    """Write ``output/name.<suffix>`` for each of ``formats``, and beside it ``<file>.json`` with the proof.

    module      as built for the signature; a copy of it is filled with ``parameters``
    examples    real ones as stored, (N, ...); they are compared one alone and all together, and are not exported
    manifest    what names the version, JSON values only; goes into every file, so pass only what may be public
    measure     also how long each reader takes

    A file takes what the model takes: inputs in input_dtype, already multiplied by input_scale. The signature inside
    the file (metadata ``meadow``) says so. Raises BadInput or MissingExtra before anything is written if a format is
    unknown, its packages are missing, its check refuses the model or the folder cannot be written; and BadInput if a
    format's writer finds that it cannot express the model, or a file disagrees with it. That file is removed; those
    already done stay.
    """
    wanted = [(name_of_format, _format(name_of_format)) for name_of_format in dict.fromkeys(formats)]
    if not wanted or not len(examples):
        got = "no format" if not wanted else "no examples to compare with"
        raise BadInput(key=KEY, got=got, allowed=f"at least one of {', '.join(FORMATS)}, and at least one example")
    model = copy.deepcopy(module).eval().requires_grad_(False)
    load_parameters(model, parameters)
    for key, kind in wanted:
        _check(key, kind, model, signature)
    writable_folder(output, key="--output")
    inputs = to_inputs(examples, signature)
    metadata = {"signature": signature.to_dict(), "manifest": dict(manifest)}
    answers = [outputs_of(model, [inputs[:1]]), outputs_of(model, [inputs])]
    if not all(np.isfinite(answer).all() for answer in answers):
        raise BadInput(key=KEY, got="a model whose outputs are not finite", allowed="a model that can be compared")

    done: list[Exported] = []
    for key, kind in wanted:
        path = output / kind.naming(name, kind.suffix)
        with _replacing(path) as draft:
            _write(key, kind, model, signature, draft, metadata)
            batches = [inputs[:1], inputs[: kind.examples]]
            told = [kind.answers(answer[: kind.examples], signature) for answer in answers]
            difference = _largest_difference(key, _read(key, kind, draft, model), batches, told)
            tolerance = _tolerance(kind, told)
            if not difference <= tolerance:
                got = f"{key}, whose largest difference to the model is {difference:.3g}"
                raise BadInput(key=KEY, got=got, allowed=f"at most {tolerance:.3g}; or another format")
        exported = Exported(key, path, path.stat().st_size, difference, tolerance, len(batches[1]))
        proof = asdict(exported) | {"path": path.name, "sha256": sha256_file(path), **metadata}
        del proof["load_seconds"], proof["row_seconds"]
        write_json(path.with_name(f"{path.name}.json"), proof, site="export")
        if measure:
            load, row = speed.measure(partial(kind.read, path, model), inputs[: kind.examples].numpy())
            exported = replace(exported, load_seconds=load, row_seconds=row)
        done.append(exported)
    return done


def check_formats(names: Iterable[str], *, key: str) -> None:
    """Raise BadInput with ``key`` for a format that there is not, MissingExtra for one whose packages are absent."""
    for name in names:
        _format(name, key)


def _format(name: str, key: str = KEY) -> Format:
    if name not in FORMATS:
        raise BadInput(key=key, got=name, allowed=", ".join(FORMATS))
    for package in FORMATS[name].packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(key=f"{key} {name}", package=package, extra=FORMATS[name].extra)
    return FORMATS[name]


def _check(key: str, kind: Format, model: nn.Module, signature: Signature) -> None:
    try:
        kind.check(model, signature)
    except BadInput as error:
        got = f"{key}, which cannot express this model ({error.got})"
        raise BadInput(key=KEY, got=got, allowed=error.allowed) from error


def _write(
    key: str, kind: Format, model: nn.Module, signature: Signature, path: Path, metadata: Mapping[str, Any]
) -> None:
    # Zeros, because formats that trace keep the example; two, because tracing takes a single one for a constant.
    example = torch.zeros((2, *signature.input_shape), dtype=getattr(torch, signature.input_dtype))
    try:
        kind.write(copy.deepcopy(model), example, path, metadata=metadata)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        got = f"{key}, which cannot express this model ({type(error).__name__}: {reason})"
        raise BadInput(key=KEY, got=got, allowed="a format that can; safetensors takes any model") from error


def _read(key: str, kind: Format, path: Path, model: nn.Module) -> Predict:
    try:
        return kind.read(path, model)
    except Exception as error:
        raise _unread(key, error) from error


def _unread(key: str, error: Exception) -> BadInput:
    reason = str(error).strip().partition("\n")[0]
    got = f"{key}, whose reader does not take the file ({type(error).__name__}: {reason})"
    return BadInput(key=KEY, got=got, allowed="a format that can; safetensors takes any model")


def _largest_difference(key: str, predict: Predict, batches: Sequence[Tensor], answers: Sequence[Array]) -> float:
    """Over a batch of one and a batch of many; NaN or infinite where the reader's shape or numbers are no answer."""
    largest = 0.0
    for batch, answer in zip(batches, answers, strict=True):
        try:
            outputs = predict(batch.numpy())
        except Exception as error:
            raise _unread(key, error) from error
        if outputs.shape != answer.shape:
            return float("inf")
        largest = float(np.maximum(largest, np.abs(outputs - answer, dtype=np.float64).max()))  # maximum keeps a NaN
    return largest


def _tolerance(kind: Format, answers: Sequence[Array]) -> float:
    """The format's tolerance in the unit of the outputs, and in proportion for a dtype other than float32."""
    size = max(1.0, *(float(np.abs(answer).max()) for answer in answers))
    return kind.tolerance * size * float(np.finfo(answers[0].dtype).eps / np.finfo(np.float32).eps)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A draft of the same name in a folder beside; becomes ``path`` at the end, or is gone after an error."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export.") as folder:
        draft = Path(folder) / path.name  # the same name, because a pt2 archive has it inside
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    sync_folder(path.parent)
