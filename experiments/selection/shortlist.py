"""`fl shortlist`: the errors of several versions side by side, those that err differently, and ensembles of them.

All of it on the server's own test examples, in two halves drawn by the seed: on one the shortlist is chosen and
stacking is fitted, on the other every figure that is told of them is measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from fl.evaluation.answers import Answers
    from fl.parameters import Array
    from fl.registry import Registry, Version

PAGE = Path("outputs/shortlist.html")
MOST_HARD = 20
ALPHA = 0.05
FEWEST = 10
"""Test examples below which halves say nothing."""


def compare(names: Sequence[str], *, registry: Path, seed: int, output: Path | None) -> dict[str, Any]:
    """Compare the versions called ``names`` and write the page; returns what is on it as plain values.

    Versions of one `fl cv --over bootstrap` are bagged: their vote is an ensemble of its own. Raises BadInput for fewer
    than two versions, or such as were measured on different test examples.
    """
    from experiments.selection.page import write_page
    from fl.files import writable_folder
    from fl.registry import Registry

    page = (output or PAGE).absolute()
    if page.suffix != ".html":
        raise BadInput(key="--output", got=str(output), allowed="a file name that ends in .html")
    store = Registry.existing(registry)
    versions = {version.name: version for version in map(store.version, names)}
    found = {name: answers_of(store, version) for name, version in versions.items()}
    report = analyse(found, seed=seed, bags=_bags(versions.values()))
    report["models"] = [
        {**one, "model": str(versions[one["name"]].manifest["model"]["target"])} for one in report["models"]
    ]
    writable_folder(page.parent, key="--output")
    write_page(page, report, title=f"{len(found)} models and their errors")
    return {**report, "page": str(page)}


def answers_of(store: Registry, version: Version) -> Answers:
    """What a version answers to the server's test examples."""
    from experiments.evaluation import held_back, rebuilt
    from fl.evaluation.answers import answers

    module, signature = rebuilt(store, version)
    examples = held_back(store, version)
    return answers(module, examples.x, examples.y, signature)


def analyse(
    found: Mapping[str, Answers],
    *,
    seed: int,
    bags: Mapping[str, Sequence[str]] | None = None,
    others: Mapping[str, Answers] | None = None,
) -> dict[str, Any]:
    """Errors, shortlist and ensembles of models by name, which answered the same examples; as plain values.

    bags     ensembles that are given, by name: their members' names
    others   answers of members that stand for nothing but their bag
    """
    from fl.evaluation.shortlist import disagreement, misses, shortlist

    choice, final = _halves(found, seed)
    chosen_on = {name: answers.only(choice) for name, answers in found.items()}
    told_on = {name: answers.only(final) for name, answers in found.items()}
    missed = {name: misses(answers) for name, answers in chosen_on.items()}
    members = shortlist(chosen_on)
    metric = next(iter(found.values())).score[0]
    ensembles = [_vote(told_on, members, "vote", "vote of the shortlist")]
    bagged = told_on | {name: answers.only(final) for name, answers in (others or {}).items()}
    ensembles += [_vote(bagged, bag, "bagging", name) for name, bag in (bags or {}).items()]
    ensembles.append(_stack(chosen_on, told_on, members))
    return {
        "metric": metric,
        "examples": {"chosen_on": len(choice), "told_on": len(final)},
        "models": [
            {
                "name": name,
                "missed": float(missed[name].mean()),
                "loss": float(told_on[name].loss.mean()),
                metric: float(told_on[name].score[1].mean()),
            }
            for name in found
        ],
        "disagreement": disagreement(list(missed.values())).tolist(),
        "hardest": _hardest(chosen_on, missed, choice),
        "missed_by": _missed_by(missed),
        "shortlist": members,
        "ensembles": ensembles,
    }


def beside(found: Mapping[str, Answers], one: str, other: str, *, seed: int) -> str:
    """Whether one model beats another on the half that told, in words."""
    _, final = _halves(found, seed)
    told, rival = found[one].only(final), found[other].only(final)
    metric, values = told.score
    value, against_it = float(values.mean()), float(rival.score[1].mean())
    better = value < against_it if metric == "mae" else value > against_it
    said = f"{metric} {value:.4f} against {against_it:.4f}"
    return f"{'beats' if better else 'does not beat'} {other}: {said}; {_sure(against(told, rival))}"


def _halves(found: Mapping[str, Answers], seed: int) -> tuple[Array, Array]:
    import numpy as np

    from fl.seeds import generator

    if len(found) < 2:
        raise BadInput(key="version", got=", ".join(found), allowed="two versions or more")
    first, *others = found.items()
    for name, answers in others:
        if not np.array_equal(answers.y, first[1].y):
            allowed = f"versions that were measured on the test examples of {first[0]}"
            raise BadInput(key="version", got=name, allowed=allowed)
    count = len(first[1].y)
    if count < FEWEST:
        raise BadInput(
            key="version", got=f"{count} test examples", allowed=f"{FEWEST} or more, to choose and to tell on"
        )
    order = generator(seed, purpose="selection/halves").permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _bags(versions: Any) -> dict[str, list[str]]:
    bags: dict[str, list[str]] = {}
    for version in versions:
        folds = version.manifest["config"].get("folds") or {}
        if folds.get("number") and folds["over"] == "bootstrap":
            bags.setdefault(f"bag {version.run_id.rpartition('-')[0]}", []).append(version.name)
    return {name: bag for name, bag in bags.items() if len(bag) > 1}


def _vote(found: Mapping[str, Answers], members: Sequence[str], kind: str, name: str) -> dict[str, Any]:
    from fl.evaluation.ensembles import vote

    return {"kind": kind, "name": name, **against_best(found, members, vote([found[member] for member in members]))}


def _stack(chosen_on: Mapping[str, Answers], told_on: Mapping[str, Answers], members: Sequence[str]) -> dict[str, Any]:
    from fl.evaluation.ensembles import stack

    try:
        stacked = stack([chosen_on[name] for name in members], [told_on[name] for name in members])
    except (BadInput, MissingExtra) as error:  # an ensemble less, and the page says why
        return {"kind": "stacking", "name": "stacking", "members": list(members), "absent": str(error)}
    return {"kind": "stacking", "name": "stacked shortlist", **against_best(told_on, members, stacked)}


def against_best(found: Mapping[str, Answers], members: Sequence[str], together: Answers) -> dict[str, Any]:
    """An ensemble beside the best of its members, by a paired test on the same examples."""
    metric, values = together.score
    lower = metric == "mae"
    scores = {name: float(found[name].score[1].mean()) for name in members}
    best = (min if lower else max)(scores, key=scores.__getitem__)
    value = float(values.mean())
    told = against(together, found[best])
    better = value < scores[best] if lower else value > scores[best]
    verdict = (
        f"{'beats' if better else 'does not beat'} its best member, {best}: {value:.4f} against {scores[best]:.4f}"
    )
    return {
        "members": list(members),
        metric: value,
        "loss": float(together.loss.mean()),
        "best_member": best,
        "best_value": scores[best],
        "beats": better,
        **told,
        "verdict": f"{verdict}; {_sure(told)}",
    }


def against(one: Answers, other: Answers) -> dict[str, Any]:
    """Two models on the same examples: McNemar's exact test for classes, an interval of the difference for numbers."""
    from fl.evaluation.paired import difference, mcnemar

    if one.signature.task == "classification":
        test = mcnemar(one.right > 0.5, other.right > 0.5)
        return {"won": test.won, "lost": test.lost, "p": test.p, "sure": test.p < ALPHA}
    apart = difference(one.score[1], other.score[1], seed=0)
    return {"difference": [apart.low, apart.high], "sure": apart.low > 0 or apart.high < 0}


def _sure(told: Mapping[str, Any]) -> str:
    how = (
        f"p {told['p']:.3g}"
        if "p" in told
        else "the difference lies between {:.3g} and {:.3g}".format(*told["difference"])
    )
    return f"{how}, {'more than chance' if told['sure'] else 'which may be chance'}"


def _missed_by(missed: Mapping[str, Array]) -> list[int]:
    """How many examples are missed by no model, by one, by two ..."""
    import numpy as np

    counts = np.sum(list(missed.values()), axis=0)
    return [int(n) for n in np.bincount(counts, minlength=len(missed) + 1)]


def _hardest(found: Mapping[str, Answers], missed: Mapping[str, Array], places: Array) -> list[dict[str, Any]]:
    """The examples that most models miss; of text, positions are told apart by no name, so there are none."""
    import numpy as np

    first = next(iter(found.values()))
    if first.signature.task == "next_token":
        return []
    table = np.array(list(missed.values()))
    counts = table.sum(axis=0)
    order = np.argsort(-counts, kind="stable")[:MOST_HARD]
    return [
        {
            "example": int(places[i]),
            "target": first.y[i].item(),
            "missed_by": [name for name, row in zip(missed, table, strict=True) if row[i]],
        }
        for i in order
        if counts[i]
    ]


def show(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print models, shortlist and what the ensembles came to; the page is the last line."""
    if as_json:
        print(json.dumps(report, indent=2))
        return
    from experiments.printing import print_table

    metric = report["metric"]
    rows = [
        (one["name"], f"{one[metric]:.4f}", f"{one['loss']:.4f}", "yes" if one["name"] in report["shortlist"] else "")
        for one in report["models"]
    ]
    print_table(("model", metric, "loss", "shortlisted"), rows)
    for one in report["ensembles"]:
        print(f"{one['name']} {one['verdict']}" if "verdict" in one else f"{one['name']}: {one['absent']}")
    print(report["page"])
