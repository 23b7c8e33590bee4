"""What `fl automl` tries: models of different kinds with standard settings, and the trivial baseline, always."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from fl.signature import Signature

DEFAULT, TRIVIAL = "default", "trivial"


@dataclass(frozen=True)
class Candidate:
    """``overrides`` of what the data set would use by itself."""

    name: str
    overrides: tuple[str, ...] = ()


def candidates(signature: Signature, *, learning_rate: float) -> list[Candidate]:
    """The default first, then the trivial baseline, then others that suit the data.

    ``learning_rate`` is the default's own: it is tried at three times that and at a third.
    """
    found = [Candidate(DEFAULT), Candidate(TRIVIAL, ("model=constant",))]
    if signature.task == "next_token":
        found += [Candidate("lstm", ("model=lstm",)), Candidate("transformer", ("model=transformer",))]
    elif len(signature.input_shape) == 1:
        half = max(1, signature.input_shape[0] // 2)
        steps = f"[{{impute: {{indicator: true}}}},{{scale: {{}}}},{{select: {{most: {half}}}}}]"
        by = "correlation" if signature.task == "regression" else "mutual_information"
        selected = steps.replace(f"most: {half}", f"most: {half}, by: {by}")
        found += [
            Candidate("linear", ("model=logistic",)),
            Candidate("linear, half the columns", ("model=logistic", f"dataset.recipe={selected}")),
            Candidate("network", ("model=table_mlp",)),
            Candidate("wide network", ("model=table_mlp", "model.hidden=[128,128]", "model.dropout=0.2")),
        ]
    else:
        found += [Candidate("linear", ("model=softmax",)), Candidate("network", ("model=mlp",))]
        if len(signature.input_shape) == 3 and min(signature.input_shape[1:]) >= 8:
            found.append(Candidate("convolutional network", ("model=cnn",)))
    if signature.task == "classification" and find_spec("xgboost") is not None:
        found.append(Candidate("trees", ("strategy=fedxgbbagging",)))
    found += [
        Candidate("default, large steps", (f"client.learning_rate={3 * learning_rate:.6g}",)),
        Candidate("default, small steps", (f"client.learning_rate={learning_rate / 3:.6g}",)),
        Candidate("default, fedprox", ("algorithm=fedprox",)),
    ]
    return found
