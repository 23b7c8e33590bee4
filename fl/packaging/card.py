"""The model card: what whoever meets the model should know of it, as Markdown.

After Mitchell et al., Model Cards for Model Reporting, 2019 (https://arxiv.org/abs/1810.03993). It is made of what the
registry knows, and says so where nobody told something. No time, folder or name of a run is in it: the same model with
the same evidence has the same card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fl.signature import Signature

UNTOLD = "nobody said"
Evidence = Mapping[str, Mapping[str, Any]]


def model_card(version: Mapping[str, Any], signature: Signature, evidence: Evidence) -> str:
    """Markdown. ``version`` as in a bundle's manifest, ``evidence`` by the name of the stage that found it."""
    goal, data, train = (evidence.get(name, {}) for name in ("understand", "ingest", "train"))
    sections = {
        "Intended use": _lines(goal, ("objective", "intended_use", "owner", "risks")),
        "Model": _model(version, signature),
        "Data": _data(version, data, evidence.get("split", {})),
        "Training": [
            "Federated: devices trained on examples that never left them, and sent differences of the model.",
            "",
            *_table(train, ("rounds", "num_parameters")),
        ],
        "Figures on the server's test set": _figures(version, goal, train),
        "Acceptance": _acceptance(evidence.get("accept")),
        "Limits": [
            "It knows the population that it was trained on, as it was then. An update, and so the model, can still",
            "tell something about the examples it came from.",
        ],
    }
    name = f"{str(version['model']['target']).removeprefix('fl.models.').removesuffix('.build')} on "
    parts = [f"# {name}{version['dataset'].get('name', UNTOLD)}"]
    parts += ["\n".join([f"## {title}", "", *lines]) for title, lines in sections.items()]
    return "\n\n".join(parts) + "\n"


def _model(version: Mapping[str, Any], signature: Signature) -> list[str]:
    shape = " x ".join(str(side) for side in signature.input_shape)
    facts = {
        "built by": f"`{version['model']['target']}`",
        **version["model"]["arguments"],
        "task": signature.task,
        "takes": f"{shape} of {signature.input_dtype}",
        "gives": f"{signature.num_outputs} number{'s' * (signature.num_outputs != 1)}",
        "SHA-256 of the parameters": f"`{version['model_sha256']}`",
        "after round": version["round"],
        "seed": version["seed"],
    }
    return _table(facts, tuple(facts))


def _data(version: Mapping[str, Any], data: Mapping[str, Any], split: Mapping[str, Any]) -> list[str]:
    facts = {**data, **version["dataset"], "clients": split.get("num_clients", data.get("natural_clients"))}
    return _table(facts, ("name", "origin", "licence", "examples", "clients", "missing_values", "fingerprint"))


def _figures(version: Mapping[str, Any], goal: Mapping[str, Any], train: Mapping[str, Any]) -> list[str]:
    columns: dict[str, Mapping[str, Any]] = {
        "this model": version["metrics"],
        "version 0": train.get("version_0", {}),
        "a quick baseline": goal.get("baseline", {}),
        "without looking": goal.get("trivial", {}),
    }
    wanted = {one["metric"]: one["means"] for one in goal.get("success", ())}
    rows = [
        (metric, *(_number(of.get(metric)) for of in columns.values()), wanted.get(metric, ""))
        for metric in version["metrics"]
    ]
    if not rows:
        return ["It was not measured."]
    return [_row(("metric", *columns, "goal")), _row(["---"] * (len(columns) + 2)), *(_row(row) for row in rows)]


def _acceptance(accept: Mapping[str, Any] | None) -> list[str]:
    if accept is None:
        return ["It was not asked for."]
    override = accept.get("override")
    lines = ["Accepted." if accept.get("accepted") else "Not accepted."]
    if override:
        lines.append(f"Packaged nevertheless, because: {override['reason']}")
    return lines


def _lines(facts: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"- {name.replace('_', ' ')}: {_text(facts.get(name)) or UNTOLD}" for name in names]


def _table(facts: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    rows = [(name.replace("_", " "), _text(facts[name])) for name in names if facts.get(name) not in (None, "")]
    return [_row(("", "")), _row(("---", "---")), *(_row(row) for row in rows)] if rows else []


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value)
    return "" if value is None else " ".join(str(value).split())
