"""A round that is history, trained again: from the version before it, with the same cohort and seeds.

Reads the run and changes nothing of it. Where the strategy's state after the round before is gone, the replay begins
at the last round whose state is known, at the latest at version 0, and goes through the rounds between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flwr.serverapp import Grid

from fl import wire
from fl.cohorts import unseen_clients
from fl.data.centre import Centre
from fl.errors import BadInput, CorruptFile
from fl.models import arrays
from fl.parameters import Parameters, sha256
from fl.registry import Registry, Version
from server.app import build_strategy, module_of, round_options
from server.commits import Commits
from server.history import state_path
from server.policies import policies_of
from server.rounds import Clock, RoundLoop
from server.strategy_state import load_state
from server.tracking import fan_out


@dataclass(frozen=True)
class Replayed:
    """A round trained again. ``array``: the first array that differs, None where none does."""

    round: int
    expected: str
    got: str
    array: str | None


def first_round(versions: Mapping[int, Version], round: int, run_dir: Path, *, keeps_client_state: bool) -> int:
    """The round to begin after, so that ``round`` can be trained: whose states of strategy and devices are there."""
    newest = max(versions)
    for before in range(round - 1, 0, -1):
        digest = versions[before].manifest["strategy_state_sha256"]
        known = digest is None or state_path(run_dir, before).is_file()
        if known and (not keeps_client_state or before >= newest - 1):
            return before
    return 0


def replay(
    grid: Grid,
    settings: Mapping[str, Any],
    *,
    centre: Centre,
    registry: Registry,
    run_id: str,
    run_dir: Path,
    round: int,
    keeps_client_state: bool,
) -> Iterator[Replayed]:
    """Train rounds again up to ``round``, and compare each with its version.

    Raises BadInput where the run has no such round, CorruptFile where what it needs is damaged.
    """
    torch.set_num_threads(1)
    versions = {version.round: version for version in registry.versions(run_id)}
    if round not in versions or round < 1:
        raise BadInput(key="--round", got=round, allowed=f"1 to {max(versions, default=0)}")
    num_clients, seed = int(settings["num_clients"]), int(settings["seed"])
    unseen = unseen_clients(settings.get("unseen_clients"), num_clients, seed=seed)
    num_seen = num_clients - len(unseen)
    options = round_options(settings, num_seen)
    module, frozen = module_of(settings, centre)
    strategy = build_strategy(settings, arrays.parameters_of(module), arrays.trainable_names(module), options, num_seen)
    start = first_round(versions, round, run_dir, keeps_client_state=keeps_client_state)
    if digest := versions[start].manifest["strategy_state_sha256"]:
        load_state(strategy, state_path(run_dir, start), sha256=digest)
    nothing = Commits(evaluate=lambda parameters: {}, make=lambda closings: (), tensorboard=False)
    loop = RoundLoop(
        grid=grid,
        strategy=strategy,
        options=options,
        policies=policies_of(settings, unseen=unseen),
        seed=seed,
        evaluate=nothing.evaluate,
        evaluates_beside=False,
        grown=module.why_not if isinstance(module, arrays.GrowingModule) else None,
        frozen=frozen,
        pack_state=lambda: None,
        recorded=nothing,
        observer=fan_out(()),
    )
    parameters = registry.parameters(versions[start])
    for number in range(start + 1, round + 1):
        parameters, _, _ = loop.train(parameters, number, Clock())
        yield _compared(parameters, versions[number], registry)
        if number < round:  # devices pick the version up where they are asked about it, and may send that later
            loop.evaluate_clients(wire.array_record(parameters), number, Clock())


def _compared(parameters: Parameters, version: Version, registry: Registry) -> Replayed:
    got = sha256(parameters)
    array = None
    if got != version.model_sha256:
        array = "(unknown: the version's parameters are gone)"
        try:
            expected = registry.parameters(version)
            array = next(n for n, v in parameters.items() if v.tobytes() != expected[n].tobytes())
        except (BadInput, CorruptFile):  # pruned or damaged: its hash is still known
            pass
    return Replayed(version.round, version.model_sha256, got, array)
