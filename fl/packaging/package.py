"""Package: a version of the model as a bundle, every format of it proved before it is called one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from fl import bundle
from fl.bundle import Bundle, write_bundle
from fl.files import json_bytes
from fl.packaging.export import FORMATS, Exported, export
from fl.packaging.predict import Predict
from fl.parameters import Array
from fl.signature import Signature

if TYPE_CHECKING:
    from fl.keys import Ed25519PrivateKey

WEIGHTS = "safetensors"

Judge: TypeAlias = Callable[[Sequence[tuple[Exported, Predict]]], Mapping[str, Mapping[str, Any]]]
"""Files with their readers -> by format, what the manifest says of it beside its proof."""


def package(
    module: nn.Module,
    *,
    signature: Signature,
    parameters: Mapping[str, Array],
    examples: Array,
    formats: Sequence[str],
    output: Path,
    version: Mapping[str, Any],
    card: str,
    also: Mapping[str, Any] | None = None,
    key: Ed25519PrivateKey | None = None,
    judge: Judge = lambda files: {},
) -> Bundle:
    """Write the model as a bundle below ``output``, in ``formats`` beside the parameters themselves.

    module, parameters, examples   as for ``export``, whose errors this raises before it writes anything
    version   JSON values for the manifest: model_sha256, round, seed, metrics, dataset, model (target, arguments); no
              time, folder or name of a run, so that the same model gives the same bundle
    card      Markdown
    also      more for the manifest: how it was compressed, whether it was accepted
    judge     is shown the files of lossy formats before anything is written; raises if one of them may not go out
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = list(dict.fromkeys([WEIGHTS, *formats]))
        done = export(
            module,
            signature=signature,
            parameters=parameters,
            examples=examples,
            formats=wanted,
            output=Path(folder),
            name="model",
            manifest=version,
        )
        lossy = [(one, FORMATS[one.format].read(one.path, module)) for one in done if FORMATS[one.format].lossy]
        judged = judge(lossy) if lossy else {}
        contents = {_place(one): one.path.read_bytes() for one in done}
    files = {
        **contents,
        bundle.INPUTS: json_bytes(schema(signature)),
        bundle.PREPROCESSING: json_bytes(preprocessing(signature)),
        bundle.LABELS: json_bytes({"labels": list(signature.class_names)}),
        bundle.CARD: card.encode(),
    }
    about = {
        **(also or {}),
        "version": dict(version),
        "formats": {one.format: _proof(one) | dict(judged.get(one.format, {})) for one in done},
    }
    return write_bundle(output, files=files, about=about, key=key)


def schema(signature: Signature) -> dict[str, Any]:
    """What goes in and comes out: our own fields, and the same as two tensors for programs that do not know them."""
    return {
        **signature.to_dict(),
        "inputs": [{"name": "input", "dtype": signature.input_dtype, "shape": ["batch", *signature.input_shape]}],
        "outputs": [{"name": "output", "means": _MEANS[signature.task], "values": signature.num_outputs}],
    }


def preprocessing(signature: Signature) -> dict[str, Any]:
    """From a raw row to what goes in (``before_the_model``), and what the model then does itself (``in_the_model``)."""
    if signature.recipe:
        inside: dict[str, Any] = {"kind": "recipe", "recipe": json.loads(signature.recipe)}
    else:
        names = ("medians", "feature_mean", "feature_std", "indicators")
        inside = {"kind": "table", **{name: list(getattr(signature, name)) for name in names}}
        if not any(inside[name] for name in names):
            inside = {"kind": "nothing"}
    return {
        "columns": list(signature.feature_names),
        "missing_value": "NaN",
        "before_the_model": {"multiply_by": signature.input_scale, "then_cast_to": signature.input_dtype},
        "in_the_model": inside,
    }


_MEANS = {
    "classification": "logits: their softmax are probabilities of the labels, in order",
    "next_token": "logits of the next token, at every position",
    "regression": "the prediction, in the target's own unit",
}


def _place(one: Exported) -> str:
    return bundle.WEIGHTS if one.format == WEIGHTS else f"formats/{one.path.name}"


def _proof(one: Exported) -> dict[str, Any]:
    return {
        "path": _place(one),
        "largest_difference": one.largest_difference,
        "tolerance": one.tolerance,
        "examples": one.examples,
    }
