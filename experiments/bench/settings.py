"""The settings of `fl bench`: KEY=VALUE over conf/bench.yaml, with every mistake told before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.choices import FOLDER, one_of
from fl.errors import BadInput

SERVING = "serving"
SUITES = ("shapes", "scale", "overhead", "cores", SERVING, "all")
"""``all`` are those that train; serving has tables of its own."""
LEAST_ROUNDS = 3
"""The first is told apart, and of one alone there is no median."""


@dataclass
class Bench:
    """How it is measured.

    repeats        runs of each system on each workload, of which medians are taken
    rounds         rounds a run; None: as many as each workload says
    pfl_python     an interpreter that has the package pfl; None: pfl is left out
    fedjax_python  an interpreter that has the package fedjax; None: fedjax is left out
    only           parts of names of workloads; None: all of the suite
    tolerance      how far a final loss may be from the median of all, relative to that
    """

    repeats: int = 3
    rounds: int | None = None
    pfl_python: str | None = None
    fedjax_python: str | None = None
    only: list[str] | None = None
    tolerance: float = 0.1


@dataclass
class Settings:
    """``suite`` is one of SUITES; ``output`` a new folder, None: one below outputs/bench."""

    suite: str = "shapes"
    output: str | None = None
    bench: Bench = field(default_factory=Bench)


def read(overrides: Sequence[str]) -> Settings:
    """The settings that ``overrides`` ask for. Raises BadInput by key."""
    from experiments.bench.systems import check_python

    settings = OmegaConf.merge(OmegaConf.structured(Settings), yaml.safe_load((FOLDER / "bench.yaml").read_text()))
    keys = [*(f.name for f in fields(Settings) if f.name != "bench"), *(f"bench.{f.name}" for f in fields(Bench))]
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or key not in keys:
            raise BadInput(key=key or "overrides", got=value or text, allowed=f"KEY=VALUE, KEY {one_of(keys, key)}")
        try:
            settings.merge_with_dotlist([text])
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise BadInput(key=key, got=value, allowed=str(error).splitlines()[0]) from error
    chosen: Settings = OmegaConf.to_object(settings)  # type: ignore[assignment]
    if chosen.suite not in SUITES:
        raise BadInput(key="suite", got=chosen.suite, allowed=one_of(SUITES, chosen.suite))
    bench = chosen.bench
    for name, got, least in (("repeats", bench.repeats, 1), ("rounds", bench.rounds, LEAST_ROUNDS)):
        if got is not None and got < least:
            raise BadInput(key=f"bench.{name}", got=got, allowed=f"a whole number from {least}")
    if not bench.tolerance > 0:
        raise BadInput(key="bench.tolerance", got=bench.tolerance, allowed="a number above 0")
    if chosen.output is not None and any(Path(chosen.output).expanduser().glob("*")):
        raise BadInput(key="output", got=chosen.output, allowed="a folder that is new or empty")
    bench.pfl_python = check_python("bench.pfl_python", bench.pfl_python, "pfl")
    bench.fedjax_python = check_python("bench.fedjax_python", bench.fedjax_python, "fedjax")
    return chosen


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as a mapping, for a report."""
    return asdict(settings)
