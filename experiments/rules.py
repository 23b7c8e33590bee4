"""What settings must fulfil before anything starts: all that can be told without the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.choices import choices, flat, one_of
from fl.data.split import BY as SPLITS_BY
from fl.data.split import KINDS as SPLITS
from fl.errors import BadInput
from fl.files import writable_folder
from fl.signature import TASKS

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """What the setting ``key`` must be: ``holds`` says whether a value is, ``allowed`` says it in words."""

    key: str
    holds: Callable[[Any], bool]
    allowed: str


def check(settings: Settings) -> None:
    """Raise BadInput for the first setting that cannot be; ``settings`` are complete, as ``compose`` returns them.

    Costs the import of torch and flwr, which every run needs.
    """
    values = flat(dict(settings))
    check_values(values)
    for relation in RELATIONS:
        relation(values)
    for build in BUILDERS:
        build(settings)


def check_values(values: Settings) -> None:
    """Raise BadInput for the first of some settings, by dotted key, that cannot be whatever the others are."""
    for rule in RULES:
        if rule.key in values and not rule.holds(values[rule.key]):
            raise BadInput(key=rule.key, got=_shown(values[rule.key]), allowed=rule.allowed)


def _number(key: str, least: float | None = None, above: float | None = None, below: float | None = None) -> Rule:
    """A finite number between bounds."""
    words = [("at least", least), ("above", above), ("below", below)]

    def holds(value: Any) -> bool:
        return (
            math.isfinite(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (below is None or value < below)
        )

    return Rule(key, holds, "a number " + " and ".join(f"{w} {limit:g}" for w, limit in words if limit is not None))


def _whole(key: str, least: int) -> Rule:
    return Rule(key, lambda value: value >= least, f"a whole number, at least {least}")


def _one_of(key: str, names: Iterable[str]) -> Rule:
    listed = tuple(names)
    return Rule(key, lambda value: value in listed, one_of(listed, ""))


def _or_null(rule: Rule) -> Rule:
    return Rule(rule.key, lambda value: value is None or rule.holds(value), f"{rule.allowed}, or null")


def _are_clients(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(type(client) is int and client >= 0 for client in value)
    return isinstance(value, float) and 0 < value < 1


RULES: tuple[Rule, ...] = (
    _or_null(_whole("num_clients", 1)),
    _or_null(_whole("cohort_size", 1)),
    _or_null(Rule("unseen_clients", _are_clients, "a share above 0 and below 1, or a list of client ids")),
    _whole("num_rounds", 0),
    _or_null(_whole("evaluate_every", 1)),
    _or_null(_whole("evaluate_clients_every", 1)),
    *(_one_of(f"{group}.name", choices(group)) for group in ("dataset", "partition", "engine")),
    *(_number(f"dataset.{part}_fraction", least=0, below=1) for part in ("validation", "test", "public", "held_out")),
    _one_of("dataset.task", ("auto", *TASKS)),
    _one_of("dataset.missing", ("federated", "client")),
    _one_of("dataset.split", SPLITS),
    _whole("dataset.sequence_length", 1),
    _or_null(_whole("dataset.max_server_test", 1)),
    _number("client.learning_rate", above=0),
    _or_null(_whole("client.personal_epochs", 1)),
    _or_null(_number("client.personal_learning_rate", above=0)),
    _or_null(_number("client.max_update_norm", above=0)),
    _number("client.dropout_fraction", least=0, below=1),
    _or_null(_one_of("client.denoise", ("neighbours", "median"))),
    _or_null(_one_of("client.balance", ("oversample", "undersample", "weights"))),
    _one_of("client.sends", ("fresh", "personal")),
    _whole("client.schedule.warmup_rounds", 0),
    _whole("server.seeding_epochs", 1),
    _whole("server.seeding_batch_size", 1),
    _number("server.seeding_learning_rate", above=0),
    _one_of("server.weighting", ("examples", "uniform")),
    _whole("server.round_retries", 0),
    _or_null(_number("server.deadline_seconds", above=0)),
    _whole("server.early_stopping.patience", 1),
    _number("server.early_stopping.min_delta", least=0),
    _or_null(_whole("engine.num_actors", 1)),
    _or_null(_whole("engine.unit_size", 1)),
    _one_of("client.path", ("auto", "stacked", "one_by_one")),
    _whole("selection.rounds", 0),
    _number("budget.minutes", above=0),
    _whole("budget.rounds", 1),
    _whole("budget.at_once", 1),
    _or_null(_number("business.constraints.latency_seconds", above=0)),
    _or_null(_whole("business.constraints.size_bytes", 1)),
    _or_null(_number("business.constraints.epsilon", above=0)),
    _or_null(_number("business.constraints.fairness_floor", least=0)),
    _whole("evaluation.resamples", 100),
    _number("evaluation.confidence", above=0, below=1),
    Rule("business.least_progress", lambda value: 0 <= value <= 1, "a share, from 0 to 1"),
)
"""A line a setting. Settings that a run does not have are skipped; types are held by conf/schema.py."""


def _parts_leave_training(values: Settings) -> None:
    for one, other in (("validation", "test"), ("public", "held_out")):
        keys = f"dataset.{one}_fraction", f"dataset.{other}_fraction"
        if sum(values[key] for key in keys) >= 1:
            got = f"{values[keys[0]]}, with {values[keys[1]]} for {keys[1]}"
            raise BadInput(key=keys[0], got=got, allowed="fractions that leave examples for training: below 1 together")


def _split_has_its_column(values: Settings) -> None:
    split, column = values["dataset.split"], values["dataset.split_by"]
    if split in SPLITS_BY and column is None:
        raise BadInput(key="dataset.split_by", got="null", allowed=f"a column, for dataset.split={split}")
    if split not in SPLITS_BY and column is not None:
        allowed = f"null, or dataset.split={' or '.join(SPLITS_BY)}"
        raise BadInput(key="dataset.split_by", got=column, allowed=allowed)


def _early_stopping_is_measured(values: Settings) -> None:
    metric = values["server.early_stopping.metric"]
    if metric is not None and values["evaluate_every"] is None:
        allowed = "null, or evaluate_every=1 or more: nothing is measured between the first round and the last"
        raise BadInput(key="server.early_stopping.metric", got=metric, allowed=allowed)


def _deadline_can_be_kept(values: Settings) -> None:
    if values["server.deadline_seconds"] is not None and values["engine.name"] == "inprocess":
        allowed = "forked, ray or auto with server.deadline_seconds: nobody can end a client that hangs in this process"
        raise BadInput(key="engine", got="inprocess", allowed=allowed)


def _nesterov_has_momentum(values: Settings) -> None:
    if values["client.nesterov"] and not values["client.momentum"]:
        raise BadInput(key="client.nesterov", got="true", allowed="false, or a client.momentum above 0")


def _file_is_there(values: Settings) -> None:
    if values["dataset.name"] in ("npz", "csv", "parquet", "jsonl"):
        path = values["dataset.path"]
        if path is None or not Path(path).is_file():
            allowed = f"the path of a .{values['dataset.name']} file that exists"
            raise BadInput(key="dataset.path", got=_shown(path), allowed=allowed)


def _query_has_a_source(values: Settings) -> None:
    if values["dataset.name"] == "sql":
        from fl.data.sql_sources import shown

        if not values["dataset.query"]:
            allowed = "a SELECT over files that it names, dataset.path or dataset.url"
            raise BadInput(key="dataset.query", got=_shown(values["dataset.query"]), allowed=allowed)
        shown(values["dataset.url"] or "")


def _folder_holds_no_run(values: Settings) -> None:
    folder = values["run_dir"]
    if (Path(folder) / "config.yaml").exists():
        allowed = f"a new folder; this one holds a run, which goes on with: fl resume {folder}"
        raise BadInput(key="run_dir", got=folder, allowed=allowed)


def _goals_are_of_metrics(values: Settings) -> None:
    from fl.evaluation.goals import goals

    start = "business.success."
    wanted = goals({key.removeprefix(start): value for key, value in values.items() if key.startswith(start)})
    for goal in wanted:
        if not math.isfinite(goal.threshold):
            raise BadInput(key=start + goal.metric, got=goal.threshold, allowed="a finite number")


RELATIONS: tuple[Callable[[Settings], None], ...] = (
    _parts_leave_training,
    _split_has_its_column,
    _early_stopping_is_measured,
    _deadline_can_be_kept,
    _nesterov_has_momentum,
    _file_is_there,
    _query_has_a_source,
    _goals_are_of_metrics,
    _folder_holds_no_run,
)
"""What settings, flat and dotted, must fulfil together or towards the disk."""


def _keeping(settings: Settings) -> None:
    from fl.registry.retention import keep_rule

    keep_rule(settings["server"]["keep_versions"])


def _training(settings: Settings) -> None:
    from clients.setting import training_options

    training_options(settings["client"], num_rounds=settings["num_rounds"])


def _augmenting(settings: Settings) -> None:
    from fl.data.augment import read_augment

    read_augment(settings["client"]["augment"])


def _strategy(settings: Settings) -> None:
    """Built for no arrays, and for the cohort alone where only the data know how many clients there are."""
    from fl.cohorts import unseen_clients
    from server.app import build_strategy, round_options

    known = settings["num_clients"]
    unseen = unseen_clients(settings["unseen_clients"], known, seed=settings["seed"]) if known else ()
    num_clients = known - len(unseen) if known else settings["cohort_size"] or 1
    options = round_options(settings, num_clients)
    build_strategy(settings, {}, (), options, num_clients)


def _fold(settings: Settings) -> None:
    from experiments.prepare import fold_of

    fold_of(settings)


def _packaging(settings: Settings) -> None:
    """What the pipeline ends with can be written: told before it begins."""
    if given := settings.get("package"):
        from fl.keys import read_private_key
        from fl.packaging.export import check_formats

        check_formats(given["formats"], key="package.formats")
        if given["key"]:
            read_private_key(Path(given["key"]))


def _folders(settings: Settings) -> None:
    """The run's folder is made to know, and removed again, because a later check may still refuse the run."""
    run_dir = Path(settings["run_dir"])
    known = run_dir.exists()
    writable_folder(run_dir, key="run_dir")
    if not known:
        run_dir.rmdir()
    writable_folder(Path(settings["registry_dir"]), key="registry_dir")


BUILDERS: tuple[Callable[[Settings], None], ...] = (
    _keeping,
    _training,
    _augmenting,
    _strategy,
    _fold,
    _packaging,
    _folders,
)
"""What checks its own options when it is made, and can be made without the data."""


def _shown(value: Any) -> Any:
    return "null" if value is None else value
