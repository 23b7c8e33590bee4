"""From overrides to settings: Hydra composes them, and what nobody chose follows from what somebody did.

This is the one place where a configuration is composed; what leaves it is a plain dict. Whatever Hydra or OmegaConf
complain of is said as BadInput, with key, got and allowed (see ``experiments.complaints``).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from conf import schema
from experiments import complaints
from experiments.choices import GROUPS
from fl.cohorts import unseen_clients

CONFIG_MODULE, CONFIG_NAME, VERSION_BASE = "conf", "simulate", "1.3"
LIFECYCLE, AUTOML = "lifecycle", "automl"
RUNS, SWEEPS, REGISTRY = Path("outputs/runs"), Path("outputs/multirun"), Path("outputs/registry")
NUM_CLIENTS, COHORT_SIZE = 100, 10
# Settings that take any key below them, so that nobody has to write Hydra's +.
_ARGUMENTS = ("dataset.function_arguments.", "business.success.")


def compose(overrides: Sequence[str], *, run_dir: Path | None = None, name: str = CONFIG_NAME) -> dict[str, Any]:
    """The settings of one run, complete and plain, from overrides as they are typed; BadInput if there are none such.

    ``run_dir`` is the run's folder where somebody else decides it, as a multirun does for its jobs; ``name`` is the
    configuration to start from, CONFIG_NAME, LIFECYCLE or AUTOML.
    """
    with _hydra(overrides, name):
        complaints.refuse_unfit(_parse(overrides), multirun=False)
        config = _compose(overrides, name)
    return settle(config, run_dir=run_dir)


def refuse_unfit(overrides: Sequence[str]) -> None:
    """Raise BadInput for overrides of one run that cannot be read, or that Hydra would misread."""
    with _hydra(overrides):
        complaints.refuse_unfit(_parse(overrides), multirun=False)


def settle(config: DictConfig, *, run_dir: Path | None = None) -> dict[str, Any]:
    """A composed configuration as plain values, with everything filled in that follows from other values.

    Folders and files become absolute. num_clients stays None where the data say how many clients there are
    (partition=natural), and so does a cohort_size that nobody gave.
    """
    complaints.refuse_unknown_keys(config)
    settings = complaints.resolved(config)
    settings["run_dir"] = str(_absolute(run_dir or settings["run_dir"] or RUNS / fresh_name()))
    settings["registry_dir"] = str(_absolute(settings["registry_dir"] or REGISTRY))
    if settings["num_clients"] is None and settings["partition"]["name"] != "natural":
        settings["num_clients"] = NUM_CLIENTS
    if settings["cohort_size"] is None and settings["num_clients"] is not None:
        unseen = unseen_clients(settings["unseen_clients"], settings["num_clients"], seed=settings["seed"])
        settings["cohort_size"] = min(COHORT_SIZE, settings["num_clients"] - len(unseen))
    dataset = settings["dataset"]
    dataset.pop("_target_", None)
    if dataset.get("path") and (dataset["name"] != "hub" or Path(dataset["path"]).exists()):
        dataset["path"] = str(_absolute(dataset["path"]))
    if dataset.get("quarantine"):
        dataset["quarantine"] = str(_absolute(dataset["quarantine"]))
    if settings.get("rules"):
        settings["rules"] = str(_absolute(settings["rules"]))
    return settings


def jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every job of a multirun, in order: the product of all that is swept over."""
    with _hydra(overrides):
        parsed = _parse(overrides)
        complaints.refuse_unfit(parsed, multirun=True)
        (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return batch


def sweep_of(overrides: Sequence[str]) -> tuple[list[Override], dict[str, Any]]:
    """The overrides of a multirun as Hydra reads them, and the settings of its sweeper."""
    with _hydra(overrides):
        parsed = _parse(overrides)
        complaints.refuse_unfit(parsed, multirun=True)
        fixed = [str(one.input_line) for one in parsed if not one.is_sweep_override()]
        config = hydra_compose(CONFIG_NAME, overrides=fixed, return_hydra_config=True)
        settings: dict[str, Any] = OmegaConf.to_container(config.hydra.sweeper)  # type: ignore[assignment]
    return parsed, settings


def fresh_name() -> str:
    """A name for a folder that sorts by time and that no other run has: 2026-01-31_13-59-07_a1b2."""
    return f"{datetime.now().astimezone():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(2)}"


def opened(overrides: Sequence[str]) -> list[str]:
    """``overrides`` with Hydra's ++ before the arguments of whatever ``_target_`` or function the user names himself.

    >>> opened(["model._target_=my.Net", "model.width=3", "seed=2"])
    ['model._target_=my.Net', '++model.width=3', 'seed=2']
    """
    own = tuple(f"{group}." for group in ("model", "algorithm", "strategy") if _starts(overrides, f"{group}._target_="))
    return [
        f"++{text}" if text.startswith((*own, *_ARGUMENTS)) and "._target_=" not in text else text for text in overrides
    ]


@cache
def register_schema() -> None:
    """Make the classes of conf/schema.py known to Hydra."""
    store = ConfigStore.instance()
    store.store(CONFIG_NAME, schema.Simulate, group="schema")
    store.store(LIFECYCLE, schema.Lifecycle, group="schema")
    store.store(AUTOML, schema.Automl, group="schema")
    for group, kinds in schema.CHOICES.items():
        for name, kind in kinds.items():
            store.store(name, kind, group=f"schema/{group}")


@contextmanager
def _hydra(overrides: Sequence[str], name: str = CONFIG_NAME) -> Iterator[None]:
    """Hydra set up for conf/; what it complains of inside is explained."""
    register_schema()
    with initialize_config_module(CONFIG_MODULE, version_base=VERSION_BASE):
        try:
            yield
        except complaints.COMPLAINTS as error:
            raise complaints.explain(error, overrides, lambda: _chosen(overrides, name)) from error


def _compose(overrides: Sequence[str], name: str) -> DictConfig:
    return hydra_compose(name, overrides=opened(overrides))


def _chosen(overrides: Sequence[str], name: str) -> DictConfig:
    """What the choices among ``overrides`` have, without their values: one of those is at fault."""
    pairs = ((text, *text.partition("=")) for text in overrides)
    return _compose([text for text, key, _, value in pairs if key in GROUPS and not value.startswith("{")], name)


def _parse(overrides: Sequence[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides(opened(overrides))


def _starts(overrides: Sequence[str], prefix: str) -> bool:
    return any(text.startswith(prefix) for text in overrides)


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()
