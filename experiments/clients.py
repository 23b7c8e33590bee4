"""`fl clients`: a version as every client of its run finds it, not only a cohort, and not only on average.

    RUN/clients.jsonl   a line a client: seen in training or not, and metrics of three models on its own test part
    RUN/clients.json    their distribution: deciles, worst tenth, Jain's index, Gini; who is better off than globally
    RUN/clients.png     the same as a picture, in TensorBoard's Images too

The figures are kept as evidence ``clients`` of the version as well. Nothing of the run changes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from experiments.past_run import PastRun, check_begun, open_past_run
from experiments.printing import print_table
from experiments.run_folder import only_writer
from fl.errors import BadInput

if TYPE_CHECKING:
    from fl.parameters import Parameters
    from fl.registry import Registry, Version

STARTS = ("version0", "random")
TAG = "clients/distribution"


def clients(
    name: str,
    *,
    registry: Path,
    local_start: str,
    local_epochs: int | None,
    local_learning_rate: float | None,
    engine: str | None,
    as_json: bool,
) -> None:
    """Measure the version called ``name`` on every client of its run, write the three files, print the distribution.

    local_start           what training without the others starts from: "version0" or "random"
    local_epochs          None: as many as a client trained on average in the run, its own model's included
    local_learning_rate   None: ``client.learning_rate``, the same in every epoch
    """
    from fl.registry import Registry

    if local_start not in STARTS:
        raise BadInput(key="--local-start", got=local_start, allowed=", ".join(STARTS))
    store = Registry.existing(registry)
    version = store.version(name)
    if version.manifest.get("compression") is not None:
        allowed = "a version that a run trained; fl evaluate asks every client about a compressed one"
        raise BadInput(key="version", got=version.name, allowed=allowed)
    run_dir = check_begun(Path(str(store.run(version.run_id).get("run_dir"))), key="version")
    with only_writer(run_dir, key="version"), TemporaryDirectory(prefix="meadow-clients-") as states:
        past = open_past_run(run_dir, states=Path(states))
        rows, summary = _measured(
            past,
            store,
            version,
            engine=engine,
            local_start=local_start,
            epochs=local_epochs,
            learning_rate=local_learning_rate,
        )
        _write(past, store, version, rows, summary)
    if as_json:
        print(json.dumps(summary))
    else:
        _show(summary)
        print(run_dir / "clients.png")


def _measured(
    past: PastRun,
    store: Registry,
    version: Version,
    *,
    engine: str | None,
    local_start: str,
    epochs: int | None,
    learning_rate: float | None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of all clients, and what is said of them together."""
    from fl.evaluation.distribution import spread
    from fl.messages import OwnTraining
    from server.every_client import MODELS, measure_every_client
    from server.history import quarantined

    client, values = past.values["client"], past.values
    versions = [v for v in store.versions(version.run_id) if v.round <= version.round]
    personal = OwnTraining("personal", client.get("personal_epochs"), client.get("personal_learning_rate"))
    rate = learning_rate or float(client["learning_rate"])
    local = OwnTraining(
        "local", epochs or _as_many_epochs(client, versions, past.centre.num_clients - len(past.setting.unseen)), rate
    )
    passes = sum(own.epochs or client.get("local_epochs") or 1 for own in (personal, local))
    with past.grid(
        engine=engine,
        num_rounds=max(1, passes // (client.get("local_epochs") or 1)),
        asked=past.centre.num_clients,
        quarantined=quarantined(versions),
    ) as grid:
        rows = measure_every_client(
            grid,
            parameters=store.parameters(version),
            start=_start(past, store, version, local_start),
            personal=personal,
            local=local,
            unseen=past.setting.unseen,
            round=version.round,
            seed=int(values["seed"]),
        )
    if not rows:
        allowed = "a run whose clients keep a test part: dataset.test_fraction above 0"
        raise BadInput(key="version", got=version.name, allowed=allowed)
    found = spread(rows, models=MODELS, against=MODELS[0])
    return rows, {
        "version": version.name,
        "model_sha256": version.model_sha256,
        "clients": len(rows),
        "personal": vars(personal),
        "local": {**vars(local), "start": local_start},
        "distribution": found,
        "found": _in_words(found),
    }


def _as_many_epochs(client: Mapping[str, Any], versions: Sequence[Version], num_trained: int) -> int:
    """Epochs that a client trained on average until the last of ``versions``, and those of its own model."""
    if client.get("local_steps") is not None:
        allowed = "a whole number: this run counts steps (client.local_steps), not epochs"
        raise BadInput(key="--local-epochs", got="null", allowed=allowed)
    each = int(client["local_epochs"])
    took_part = sum(len(version.manifest["cohort"]) for version in versions)
    return math.ceil(each * took_part / num_trained) + int(client.get("personal_epochs") or each)


def _start(past: PastRun, store: Registry, version: Version, start: str) -> Parameters:
    if start == "version0":
        return store.parameters(f"{version.run_id}:0")
    from fl.models import arrays
    from fl.parameters import copy
    from server.app import module_of

    module, _ = module_of(past.values, past.centre)
    return copy(arrays.parameters_of(module))


def _write(
    past: PastRun, store: Registry, version: Version, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> None:
    from fl.files import write_bytes, write_json
    from server.tracking.tensorboard import show_picture

    png = _picture(rows, summary, past.centre.name)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_bytes(past.run_dir / "clients.jsonl", lines.encode(), site="report")
    write_bytes(past.run_dir / "clients.png", png, site="report")
    write_json(past.run_dir / "clients.json", summary, site="report")
    store.attach(version, "clients", summary)
    description = f"Every client's own test part, {summary['version']}. The worst tenth is shaded."
    show_picture(past.run_dir, TAG, png, step=version.round, description=description)


def _picture(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], dataset: str) -> bytes:
    from fl.evaluation.clients_picture import draw_clients
    from fl.evaluation.distribution import groups
    from fl.evaluation.goals import LOWER
    from server.every_client import MODELS

    metric = _main_metric(summary["distribution"])
    parts = groups(rows)
    panels = {
        group: {model: [row[model][metric] for row in some if metric in row.get(model, {})] for model in MODELS}
        for group, some in parts.items()
        if group != "all" or len(parts) == 1
    }
    title = f"{dataset}: {metric} on every client's own test part, {summary['version']}"
    return draw_clients(panels, metric=metric, title=title, lower_is_better=metric in LOWER)


def _main_metric(distribution: Mapping[str, Mapping[str, Any]]) -> str:
    return "accuracy" if "accuracy" in distribution["all"] else "loss"


def _in_words(distribution: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    metric = _main_metric(distribution)
    told = [
        f"{group}: " + ", ".join(f"{model} {d['mean']:.3f} (worst tenth {d['worst']:.3f})" for model, d in some.items())
        for group, some in ((group, metrics[metric]) for group, metrics in distribution.items())
    ]
    return f"{metric} of clients, {'; '.join(told)}"


def _show(summary: Mapping[str, Any]) -> None:
    columns = (
        "clients",
        "metric",
        "model",
        "n",
        "mean",
        "worst 10 %",
        "p10",
        "median",
        "p90",
        "Jain",
        "Gini",
        "better",
    )
    rows = [
        (
            *(group, metric, model, facts["clients"]),
            *(_figure(facts[name]) for name in ("mean", "worst")),
            *(_figure(facts["deciles"][tenth]) for tenth in (1, 5, 9)),
            *(_figure(facts[name]) for name in ("jain", "gini")),
            f"{facts['share_better']:.0%}, worse {facts['share_worse']:.0%}" if "share_better" in facts else "",
        )
        for group, metrics in summary["distribution"].items()
        for metric, models in metrics.items()
        for model, facts in models.items()
    ]
    print_table(columns, rows)
    local = summary["local"]
    print(f"local: {local['epochs']} epochs at {local['learning_rate']:g} from {local['start']}, {summary['version']}")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
