"""The Flower ServerApp: the centre. It runs unchanged on a real SuperLink.

Everything it needs comes by run config, as flat values. Of the data it opens the centre's own folder alone: the
public part and the held-out test set. ``run.centre`` names that folder, ``run.dir`` where the run's files go,
``run.registry`` where versions go; a run that has versions there goes on after the last of them. ``run.until`` is a
round to pause at, ``run.commits`` the descriptor of a socket to a process for commits (server/commit_process.py).
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from torch import nn

from fl import interrupts
from fl.algorithms.algorithm import load_algorithm
from fl.cohorts import check_cohort_size, unseen_clients
from fl.data.centre import Centre, open_centre
from fl.errors import BadInput, Interrupted, StoppedByFaults, StorageFailed
from fl.metrics import Statistics, values
from fl.models import arrays
from fl.models.build import build_model
from fl.models.evaluate import evaluate
from fl.models.frozen import freeze
from fl.models.tasks import derived
from fl.parameters import Parameters, copy, num_bytes, num_values
from fl.registry import Registry
from fl.run_config import unflatten
from server.commit_process import NOBODY, recorder
from server.commits import Commits
from server.history import History, open_history
from server.personal import final_comparison
from server.policies import Policies, policies_of
from server.records import RunRecord, RunSummary
from server.rounds import RoundLoop, RoundOptions, Totals
from server.seeding import check_seeding, seed_model, share_better_than_random
from server.stock import build_stock
from server.strategy import AlgorithmStrategy, wait_for_nodes
from server.strategy_state import pack_state
from server.tracking import fan_out, shown

MOST_ASKED_ABOUT_VERSION_0 = 100
"""Clients asked whether version 0 beats a random model: enough for a share, however large the population."""

SELECTED_BY = {"classification": "accuracy", "next_token": "accuracy", "regression": "loss"}

DEFAULT_REGISTRY = Path("outputs") / "registry"
"""Where `fl` looks for versions when it is not told."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run, from version 0 or from where it stopped, to its summary.

    Raises StoppedByFaults or Interrupted after the summary is written: every committed version stays.
    """
    torch.set_num_threads(1)
    settings = unflatten(context.run_config)
    run, seed = settings["run"], int(settings["seed"])
    for name in ("dir", "registry", "centre"):
        if not run.get(name):
            raise BadInput(key=f"run.{name}", got=run.get(name), allowed="a folder on the server's side")
    began = float(run.get("began") or time.time())
    run_dir, registry, centre = Path(run["dir"]), Registry(run["registry"]), open_centre(Path(run["centre"]))
    run_dir.mkdir(parents=True, exist_ok=True)
    num_clients = int(settings.get("num_clients") or centre.num_clients)
    unseen = unseen_clients(settings.get("unseen_clients"), num_clients, seed=seed)
    num_seen = num_clients - len(unseen)
    options = round_options(settings, num_seen)
    module, frozen = module_of(settings, centre)
    random_model = copy(arrays.parameters_of(module))
    strategy = build_strategy(settings, random_model, arrays.trainable_names(module), options, num_seen)
    history = open_history(
        settings,
        registry=registry,
        run_id=str(run.get("id") or registry.claim_run_id(run_dir.name)),
        run_dir=run_dir,
        centre=centre,
        task_metric=SELECTED_BY[centre.signature.task],
    )
    history.blank = pack_state(strategy)
    resumed = history.resume(strategy)
    evaluated = partial(measure, module=module, centre=centre)
    commits = Commits(evaluated, history.commit, tensorboard=bool(settings["server"].get("tensorboard", True)))
    live = bool(settings["server"].get("terminal", True)) and sys.stderr.isatty()
    loop = RoundLoop(
        grid=grid,
        strategy=strategy,
        options=options,
        policies=policies_of(settings, unseen=unseen),
        seed=seed,
        evaluate=evaluated,
        evaluates_beside=_draws_nothing(module),
        grown=module.why_not if isinstance(module, arrays.GrowingModule) else None,
        frozen=frozen,
        pack_state=partial(history.pack, strategy),
        recorded=recorder(commits, int(run.get("commits", NOBODY))),
        observer=fan_out([shown(terminal=live, default_registry=DEFAULT_REGISTRY)]),
    )
    if _devices_keep(settings):  # what they had before the last round but one is gone, and a killed run may need it
        loop.may_wait_bytes = 0
    record = RunRecord(
        run_id=history.run_id,
        run_dir=run_dir,
        registry_dir=registry.folder,
        config=history.fields["config"],
        signature=centre.signature,
        dataset=centre.name,
        num_clients=num_clients,
        cohort_size=options.cohort_size,
        num_rounds=options.num_rounds,
        first_round=resumed[1][-1].round if resumed else 0,
        earlier=resumed[1][:-1] if resumed else (),
        engine=str(run.get("engine", "superlink")),
        num_parameters=num_values(random_model),
        partition_picture=Path(run["picture"]) if run.get("picture") else None,
    )
    totals = resumed[0] if resumed else Totals(parameters=random_model)
    ready = time.time()
    stopped: Exception | None = None
    extra: dict[str, Any] = {}
    begun = False
    try:
        with interrupts.named(), _quick_collections():
            with interrupts.deferred():  # once there are files of this run, its end is written too
                loop.recorded.on_start(record)
                loop.observer.on_start(record)
                registry.start_run(history.run_id, {"run_dir": str(run_dir.resolve()), "dataset": centre.name})
                registry.keep_examples(history.run_id, centre.test.x, centre.test.y)
                begun = True
                if resumed:
                    loop.recorded.on_round(resumed[1][-1])
                    loop.observer.on_round(resumed[1][-1])
            if not resumed:
                _begin(loop, history, totals, module, centre, settings)
            loop.run(totals, until=int(run.get("until") or options.num_rounds))
            if (
                loop.over(totals)
                and settings["client"].get("personal")
                and settings["server"].get("personal_evaluation", True)
            ):
                nodes = wait_for_nodes(grid, options.cohort_size)
                extra["personal"] = final_comparison(
                    grid, nodes, totals.parameters, round=totals.round, run_dir=run_dir, seed=seed
                )
    except Exception as error:  # whatever ends a run, its summary is written first
        if not begun:
            raise
        stopped = error
    ended = time.time()
    seconds = {"setup": ready - began, "rounds": ended - ready, "total": ended - began}
    try:
        _finish(
            loop,
            history,
            totals,
            stopped,
            seconds=seconds,
            extra={**dict(run.get("summary") or {}), **extra},
            first_champion=bool(settings["server"].get("first_champion", True)) and not _is_fold(settings),
        )
    except StorageFailed:
        if stopped is None:
            raise
    if stopped:
        raise stopped


@contextmanager
def _quick_collections() -> Iterator[None]:
    """Leave what is alive by now out of garbage collections: some stock strategies of Flower start one a reply, and
    each would look through all that torch has loaded (0.2 s).
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _begin(
    loop: RoundLoop, history: History, totals: Totals, module: nn.Module, centre: Centre, settings: Mapping[str, Any]
) -> None:
    """Version 0: seeded, compared with a random model on clients' own test parts, and committed."""
    random_model = totals.parameters
    seeded = seed_model(
        module,
        how=str(settings["server"]["seeding"]),
        centre=centre,
        registry=history.registry,
        options=settings["server"],
        seed=loop.seed,
    )
    facts, down = dict(seeded.facts), 0
    if facts["how"] != "random":
        nodes = wait_for_nodes(loop.grid, loop.options.cohort_size)[:MOST_ASKED_ABOUT_VERSION_0]
        share = share_better_than_random(loop.grid, nodes, seeded.parameters, random_model)
        facts |= {"share_better_than_random": share, "clients_asked": len(nodes)}
        down = len(nodes) * (num_bytes(seeded.parameters) + num_bytes(random_model))
    totals.parameters = seeded.parameters
    loop.begin(totals, origin={"parent": seeded.parent, "seeding": facts}, bytes={"down": down, "up": 0})


def _finish(
    loop: RoundLoop,
    history: History,
    totals: Totals,
    stopped: Exception | None,
    *,
    seconds: dict[str, float],
    extra: dict[str, Any],
    first_champion: bool,
) -> None:
    """The end of a run, however it came: final figures, the ``first_champion`` where it may make one, the summary."""
    final = dict(totals.metrics)
    if totals.model_sha256 and not final:
        plain = values(loop.evaluate(totals.parameters))
        final = derived(plain)
    over = loop.over(totals)
    status = _status(stopped, totals, over=over)
    versions = history.committed()
    best = history.registry.best(history.run_id) if versions else None
    if stopped is None and over and versions:
        history.registry.prune(history.run_id, history.keep)
        if first_champion:
            history.registry.crown_if_vacant(history.run_id)
    history.registry.finish_run(history.run_id, {"status": status})
    seeding = dict(versions[0].manifest.get("seeding") or {}) if versions else {}
    summary = RunSummary(
        status=status,
        reason=str(stopped or totals.stopped),
        rounds_completed=max(0, totals.round),
        model_sha256=totals.model_sha256,
        final=final,
        best=best.name if best else None,
        seconds=seconds,
        bytes=totals.bytes,
        clients=totals.clients,
        quarantined=list(totals.quarantined.values()),
        extra={"seeding": seeding, "phases": totals.seconds, **extra},
    )
    loop.recorded.on_end(summary)
    loop.observer.on_end(summary)


def _devices_keep(settings: Mapping[str, Any]) -> bool:
    """Whether devices keep something between rounds: their models, or what the algorithm has them keep."""
    return bool(settings["client"].get("personal")) or load_algorithm(settings["algorithm"]).keeps_client_state


def _is_fold(settings: Mapping[str, Any]) -> bool:
    """Whether a run leaves out a fold of its data: its model is a measurement, and nobody's to use."""
    return (settings.get("folds") or {}).get("number") is not None


def _status(stopped: Exception | None, totals: Totals, *, over: bool) -> str:
    if isinstance(stopped, StoppedByFaults | StorageFailed):
        return "stopped by faults"
    if isinstance(stopped, Interrupted):
        return "interrupted"
    if stopped:
        return "failed"
    if not over:
        return "paused"
    return "stopped early" if totals.stopped else "finished"


def check(settings: Mapping[str, Any], *, centre: Path, registry: Registry) -> None:
    """Everything of the server's that can be wrong in ``settings``, before anything starts; BadInput names it."""
    opened = open_centre(centre)
    num_clients, seed = int(settings["num_clients"]), int(settings["seed"])
    num_seen = num_clients - len(unseen_clients(settings.get("unseen_clients"), num_clients, seed=seed))
    module, options = module_of(settings, opened)[0], round_options(settings, num_seen)
    parameters = arrays.parameters_of(module)
    build_strategy(settings, parameters, arrays.trainable_names(module), options, num_seen)
    check_seeding(
        str(settings["server"]["seeding"]),
        centre=opened,
        registry=registry,
        options=settings["server"],
        module=module,
    )


def module_of(settings: Mapping[str, Any], centre: Centre) -> tuple[nn.Module, tuple[str, ...]]:
    """The model of a run, as it initialises itself, and the names of its arrays that are frozen."""
    arguments = dict(settings["model"])
    target = str(arguments.pop("_target_"))
    module = build_model(target=target, arguments=arguments, signature=centre.signature, seed=int(settings["seed"]))
    return module, freeze(module, settings["client"].get("frozen") or ())


def _draws_nothing(module: nn.Module) -> bool:
    """Whether evaluating a module surely leaves the process-wide generators alone: it is made of known layers."""
    return all(type(part).__module__.startswith(("torch.nn.", "fl.models.")) for part in module.modules())


def measure(parameters: Parameters, *, module: nn.Module, centre: Centre) -> Statistics:
    """Statistics of ``parameters`` on the server's held-out test set."""
    arrays.load_parameters(module, parameters)
    return evaluate(module, centre.test.x, centre.test.y, centre.signature)


def round_options(settings: Mapping[str, Any], num_clients: int) -> RoundOptions:
    """How the rounds go, from the settings of a run; BadInput names what is wrong. ``num_clients`` may be trained."""
    server = settings["server"]
    early = server.get("early_stopping") or {}
    quorum = float(server.get("quorum", 0.5))
    if not 0 <= quorum <= 1:
        raise BadInput(key="server.quorum", got=quorum, allowed="0 to 1, a share of the cohort")
    return RoundOptions(
        num_rounds=int(settings["num_rounds"]),
        cohort_size=check_cohort_size(settings.get("cohort_size"), num_clients),
        evaluate_every=settings.get("evaluate_every"),
        evaluate_clients_every=settings.get("evaluate_clients_every"),
        quorum=quorum,
        round_retries=int(server.get("round_retries", 2)),
        max_update_norm=settings["client"].get("max_update_norm"),
        stop_metric=early.get("metric"),
        patience=int(early.get("patience", 10)),
        min_delta=float(early.get("min_delta", 0.0)),
    )


def build_strategy(
    settings: Mapping[str, Any],
    initial: Parameters,
    trainable: tuple[str, ...],
    options: RoundOptions,
    num_clients: int,
) -> Strategy:
    """Flower's own strategy where ``strategy`` names one, else our algorithm as a strategy."""
    chosen = settings.get("strategy") or {}
    algorithm = load_algorithm(settings["algorithm"])
    if chosen.get("_target_"):
        if algorithm.keeps_client_state:
            allowed = f"fedavg or fedprox; {algorithm.name} needs its own server half: strategy=own"
            raise BadInput(key="algorithm", got=algorithm.name, allowed=allowed)
        return build_stock(
            chosen,
            num_clients=num_clients,
            cohort_size=options.cohort_size,
            learning_rate=float(settings["client"]["learning_rate"]),
            evaluate=options.evaluate_clients_every is not None,
        )
    policies = Policies()
    return AlgorithmStrategy(
        algorithm=algorithm,
        initial=initial,
        trainable=trainable,
        population=num_clients,
        cohort_size=options.cohort_size,
        available=policies.available,
        choose=policies.choose,
        seed=int(settings["seed"]),
    )
