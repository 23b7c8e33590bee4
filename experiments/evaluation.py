"""`fl evaluate`: a version on examples that were held back from training; the findings become its evidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

    from fl.evaluation.answers import Answers
    from fl.parameters import Array
    from fl.registry import Registry, Version
    from fl.signature import Signature

EVALUATE = "evaluate"


@dataclass(frozen=True)
class HeldBack:
    """Examples as stored that no client trained on, and where they come from, in words."""

    x: Array
    y: Array
    origin: str


def evaluate_version(
    name: str,
    *,
    registry: Path,
    columns: Sequence[str] | None,
    sensitive: str | None,
    resamples: int,
    confidence: float,
    as_json: bool,
) -> None:
    """Evaluate the version called ``name``, keep the evidence, print it."""
    from fl.registry import Registry

    store = Registry.existing(registry)
    version = store.version(name)
    found = evaluate(store, version, columns=columns, sensitive=sensitive, resamples=resamples, confidence=confidence)
    store.attach(version, EVALUATE, found)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


def evaluate(
    store: Registry,
    version: Version,
    *,
    columns: Sequence[str] | None = None,
    sensitive: str | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Everything the evidence ``evaluate`` holds; attaches nothing. BadInput where the version cannot be examined."""
    from clients.memory import keep_freed_memory
    from fl.evaluation.held_back import examine
    from fl.evaluation.resources import latency, size

    keep_freed_memory()
    examples = held_back(store, version)
    module, signature = rebuilt(store, version)
    seed = int(version.manifest["seed"] or 0)
    found, mine = examine(
        module,
        examples.x,
        examples.y,
        signature,
        seed=seed,
        resamples=resamples,
        confidence=confidence,
        columns=columns,
        sensitive=sensitive,
    )
    other = rival(store, version)
    selection = version.manifest["selection"]
    return {
        "version": version.name,
        "version_hash": version.hash,
        "examples": {
            "count": len(examples.y),
            "origin": examples.origin,
            "chose_the_version": f"{selection['metric']} on the same examples chooses the best round of a run, which "
            "therefore looks a little better here than it is; clients' own test parts choose nothing",
        },
        **found,
        "rival": other.name if other else None,
        "champion": beside_champion(store, version, mine, examples),
        "clients": on_clients(store, version, seed=seed, resamples=resamples, confidence=confidence),
        "privacy": privacy_spent(store, version),
        "resources": size(store.parameters(version)),
        "measured": latency(module, signature),
    }


def privacy_spent(store: Registry, version: Version) -> dict[str, Any]:
    """What was spent of the privacy of the clients whose updates went into a version."""
    from fl.evaluation.privacy import Round, spent

    config, line = version.manifest.get("config"), store.lineage(version)
    if not config:
        return {"absent": "the run did not record its settings"}
    trained = [one.manifest for one in line if one.round and one.run_id == version.run_id]
    counts = [(one.get("record") or {}).get("clients", {}).get("answered") for one in trained]
    return spent(
        [Round(one.get("cohort") or (), answered) for one, answered in zip(trained, counts, strict=True)],
        strategy=config["strategy"],
        weighting=str(config["server"]["weighting"]),
        cohort_size=int(config["cohort_size"]),
        num_clients=int(config["num_clients"]),
        earlier=line[-1].run_id != version.run_id,
    )


def beside_champion(store: Registry, version: Version, mine: Answers, examples: HeldBack) -> dict[str, Any]:
    """The answers ``mine`` to ``examples``, of a version or of a file of it, compared with the champion's."""
    from fl.evaluation.answers import answers
    from fl.evaluation.held_back import absent, against

    other = rival(store, version)
    if other is None:
        return absent("there was no champion from another run")
    if other.manifest["signature"] != version.manifest["signature"]:
        return absent(f"the champion {other.name} was made for other inputs or outputs")
    theirs = answers(rebuilt(store, other)[0], examples.x, examples.y, mine.signature)
    return against(mine, theirs, other.name, seed=int(version.manifest["seed"] or 0))


def on_clients(
    store: Registry,
    version: Version,
    *,
    seed: int,
    resamples: int,
    confidence: float,
    instead: nn.Module | None = None,
) -> dict[str, Any]:
    """What every client of the run answers about its own test part: merged statistics, by messages.

    ``instead``: a module of this process that answers in the version's place. Then only an engine of this process will
    do; a run that asked for another is told so, since its examples are read nowhere else.
    """
    from experiments.past_run import check_begun, data_run, open_past_run, run_folder
    from fl.evaluation.by_client import by_client
    from fl.evaluation.held_back import absent
    from server.every_client import measure_version
    from server.history import quarantined

    run_dir, made_smaller = run_folder(store, version), version.manifest.get("compression") is not None
    if not (run_dir / "devices" / "partitions" / "store.json").is_file():
        return absent("the folder of the run is gone, and with it the clients' own examples")
    with TemporaryDirectory(prefix="meadow-evaluate-") as states:
        past = open_past_run(
            check_begun(run_dir, key="version"),
            states=Path(states),
            model=version.manifest["model"] if made_smaller else None,
        )
        if instead is not None:
            if past.values["engine"]["name"] not in ("auto", "inprocess"):
                return absent(f"the run's engine is {past.values['engine']['name']}, whose clients run no files")
            past = replace(past, setting=replace(past.setting, module=instead))
        asked = past.centre.num_clients
        engine = "inprocess" if past.values["engine"]["name"] == "auto" else None
        away = quarantined(store.versions(data_run(store, version)))
        with past.grid(engine=engine, num_rounds=1, asked=asked, quarantined=away) as grid:
            rows = measure_version(grid, store.parameters(version), round=version.round, seed=seed)
    return by_client(rows, asked=asked, seed=seed, resamples=resamples, confidence=confidence)


def held_back(store: Registry, version: Version) -> HeldBack:
    """The server's test set in the run's folder; where that is gone, the examples that the registry has kept of it."""
    from experiments.past_run import run_folder
    from fl.data.centre import open_centre

    folder = run_folder(store, version) / "centre"
    if (folder / "centre.json").is_file():
        centre = open_centre(folder)
        if centre.fingerprint == version.manifest["dataset"].get("fingerprint"):
            return HeldBack(centre.test.x, centre.test.y, "the server's test set, in no partition")
    kept = store.examples(version.run_id)
    if kept is None:
        allowed = "a version whose run left test examples, in its folder or in the registry"
        raise BadInput(key="version", got=version.name, allowed=allowed)
    return HeldBack(*kept, f"the first {len(kept[1])} of the server's test set, kept in the registry: the run is gone")


def rebuilt(store: Registry, version: Version) -> tuple[nn.Module, Signature]:
    """The version as a module filled with its parameters, and its signature. BadInput for one that has no model."""
    from experiments.export import built
    from fl.models.arrays import load_parameters

    manifest = version.manifest
    if not manifest.get("signature") or not manifest["model"].get("target"):
        raise BadInput(key="version", got=version.name, allowed="a version of `fl simulate`: its model can be built")
    module, signature = built(version)
    load_parameters(module, store.parameters(version))
    return module, signature


def rival(store: Registry, version: Version) -> Version | None:
    """The newest champion that is of another run: what this version would replace, or has replaced."""
    for move in reversed(store.alias_moves("champion")):
        other = store.version(str(move["to"]))
        if other.run_id != version.run_id:
            return other
    return None


def show(found: dict[str, Any]) -> None:
    """Print the findings as tables."""
    from experiments.printing import print_table

    share = f"{found['confidence']:.0%}"
    rows = [(name, *_between(one)) for name, one in found["metrics"].items()]
    print_table((f"{found['examples']['count']} examples", "value", f"{share} from", "to"), rows)
    worst = found["worst_slice"]
    facts: list[tuple[str, ...]] = [
        ("worst slice", worst.get("name", worst.get("absent")), *(_between(worst) if "value" in worst else ()))
    ]
    champion = found["champion"]
    told = champion.get("absent") or (
        f"{champion['version']}: {champion['metric']} {champion['value']:.4g} against {champion['other']:.4g}, "
        f"worse by chance with p {champion['worse_p']:.3g}"
    )
    facts.append(("champion", told))
    clients = found["clients"]
    facts.append(("clients", clients.get("absent") or _over_clients(clients)))
    fairness = found["fairness"]
    facts.append(("fairness", fairness.get("absent") or _in_words(fairness)))
    for kind in found["robustness"]:
        told = kind.get("absent") or ", ".join(f"{one['value']:.4g} at {one['strength']:g}" for one in kind["values"])
        facts.append((kind["kind"], told))
    private = found["privacy"]
    spent = private.get("absent") or "epsilon {epsilon:.4g} at delta {delta:.3g}".format(**private)
    facts.append(("privacy", spent))
    explained = found["explanation"]
    first = [f"{one['input']} {one['importance']:.3g}" for one in explained.get("permutation", [])[:5]]
    facts.append(("matters most", explained.get("absent") or ", ".join(first)))
    facts.append(("size", f"{found['resources']['parameters']:,} numbers, {found['resources']['bytes']:,} bytes"))
    facts.append(("one example", f"{1000 * found['measured']['latency_seconds']:.3g} ms"))
    print_table(("", "", "", "", ""), [(*row, *[""] * (5 - len(row))) for row in facts])


def _over_clients(clients: dict[str, Any]) -> str:
    """In words: how many, and how the first metric is spread over them."""
    worst = clients.get("worst")
    if worst is None:
        return f"{clients['count']} of {clients['asked']}"
    spread = ", ".join(f"{name} {value:.4g}" for name, value in clients["metrics"][worst["metric"]].items())
    return f"{clients['count']} of {clients['asked']}, {worst['metric']} {spread}; worst: client {worst['client']}"


def _in_words(fairness: dict[str, Any]) -> str:
    apart = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in fairness.items() if name.endswith("difference")]
    return f"by {fairness['column']}: {', '.join(apart)}"


def _between(one: dict[str, Any]) -> tuple[str, str, str]:
    value, low, high = ("" if one[k] is None else f"{one[k]:.4g}" for k in ("value", "low", "high"))
    return value, low, high
