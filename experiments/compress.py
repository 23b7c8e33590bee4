"""`fl compress`: a smaller version made of a version, with what that costs; it goes through the same gate.

    --prune F             the smallest weights become zero
    --prune-units F       the weakest hidden units are taken out
    model=... model.X=..  another model learns from the version's answers

What is left, or is new, is trained on the public part of the run's data to answer like the original. The result is a
version of its own, in a run of its own, whose parent is the original: it is evaluated, accepted, packaged and served
like any other, on the same held-back examples and against the same success criteria.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.past_run import data_run, run_folder
from fl.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

    from fl.data.dataset import Examples
    from fl.registry import Registry, Version
    from fl.signature import Signature

COMPRESS = "compress"
EPOCHS = {"prune": 20, "prune_units": 20, "distil": 100}


@dataclass(frozen=True)
class Training:
    """How the smaller model learns from the original; ``None``: what suits the operation, or the run's seeding."""

    epochs: int | None = None
    temperature: float = 2.0
    batch_size: int | None = None
    learning_rate: float | None = None


@dataclass(frozen=True)
class _Smaller:
    """A module with its parameters, what built it, and what was done."""

    module: nn.Module
    target: str
    arguments: Mapping[str, Any]
    operation: dict[str, Any]
    zeros_stay: bool = False


def compress(
    name: str,
    *,
    registry: Registry,
    model: Sequence[str] = (),
    prune: float | None = None,
    prune_units: float | None = None,
    training: Training | None = None,
) -> Version:
    """Commit a smaller version of the version called ``name``; exactly one of ``model``, ``prune``, ``prune_units``.

    model   overrides of `fl simulate`: model=... and model.KEY=...

    Raises BadInput before anything is written where the version has no model to be built, the operation does not suit
    it, or public examples are wanted and gone.
    """
    from fl.models.arrays import parameters_of
    from fl.models.imports import source_sha256

    version = registry.version(name)
    if (bool(model), prune is not None, prune_units is not None).count(True) != 1:
        got = "none, or several at once"
        allowed = "one of --prune, --prune-units, model=...; the result is a version that can be compressed again"
        raise BadInput(key="fl compress", got=got, allowed=allowed)
    original, signature = _rebuilt(registry, version)
    if model:
        smaller = _distilled(version, signature, model)
    elif prune is not None:
        smaller = _pruned(original, version, prune)
    else:
        smaller = _without_units(original, signature, version, float(prune_units or 0))
    learned = _learn(smaller, original, signature, registry, version, training or Training())
    operation = {**smaller.operation, "learned": learned}
    parameters, seed = parameters_of(smaller.module), int(version.manifest["seed"] or 0)
    config = {**version.manifest["config"], "model": {"_target_": smaller.target, **smaller.arguments}}
    run_id = registry.claim_run_id(f"{version.run_id}-{version.round}-{smaller.operation['kind']}")
    of = data_run(registry, version)
    kept = registry.examples(of)
    if kept is not None:
        registry.keep_examples(run_id, *kept)
    registry.start_run(run_id, {"data_of": of, "compressed": version.name})
    made = registry.commit(
        parameters,
        {
            "run_id": run_id,
            "round": 0,
            "parent": version,
            "config": config,
            "seed": seed,
            "dataset": version.manifest["dataset"],
            "signature": version.manifest["signature"],
            "model": {
                "target": smaller.target,
                "arguments": dict(smaller.arguments),
                "source_sha256": source_sha256(smaller.target),
            },
            "metrics": _metrics(registry, version, smaller.module, signature),
            "selection": version.manifest["selection"],
            "compression": operation,
        },
    )
    registry.finish_run(run_id, {})
    return made


def compare(registry: Registry, version: Version) -> dict[str, Any]:
    """What compressing cost: the original and the version on the same held-back examples; kept as evidence too."""
    from experiments.evaluation import held_back
    from fl.evaluation.answers import answers, figures
    from fl.evaluation.held_back import against, between
    from fl.evaluation.intervals import intervals
    from fl.evaluation.resources import latency, size

    original = registry.version(str(version.manifest["parent_name"]))
    examples, seed = held_back(registry, version), int(version.manifest["seed"] or 0)
    sides: dict[str, dict[str, Any]] = {}
    found = []
    for side, one in (("original", original), ("compressed", version)):
        module, signature = _rebuilt(registry, one)
        parameters = registry.parameters(one)
        found.append(answers(module, examples.x, examples.y, signature))
        every = intervals(figures(found[-1]), seed=seed)
        sides[side] = {
            "version": one.name,
            "metrics": {name: between(value) for name, value in every.items()},
            **size(parameters),
            "zeros": sum(int((value == 0).sum()) for value in parameters.values()),
            "measured": latency(module, signature),
        }
    lost = against(found[1], found[0], original.name, seed=seed)
    evidence = {"operation": version.manifest["compression"], "examples": len(examples.y), **sides, "lost": lost}
    told = f"{lost['metric']} {lost['value']:.4g} after, {lost['other']:.4g} before"
    registry.attach(version, COMPRESS, {**evidence, "found": told})
    return evidence


def show(found: Mapping[str, Any]) -> None:
    """Print what it cost as a table."""
    from experiments.printing import print_table
    from fl.evaluation.card import between
    from fl.evaluation.held_back import CONFIDENCE

    sides = [found["original"], found["compressed"]]
    rows = [
        ("numbers", *(f"{one['parameters']:,}" for one in sides)),
        ("of them zero", *(f"{one['zeros']:,}" for one in sides)),
        ("bytes", *(f"{one['bytes']:,}" for one in sides)),
        ("one example", *(f"{1000 * one['measured']['latency_seconds']:.3g} ms" for one in sides)),
        *((name, *(between(one["metrics"][name], CONFIDENCE) for one in sides)) for name in sides[0]["metrics"]),
    ]
    print_table((f"{found['examples']} examples", *(one["version"] for one in sides)), rows)
    lost = found["lost"]
    print(f"it would look so much worse by chance with p {lost['worse_p']:.3g} ({lost['test']})")


def run_compress(name: str, *, registry: Registry, as_json: bool, **how: Any) -> int:
    """Compress, compare, and where success criteria are set hold the result against them; returns the exit status."""
    from experiments import acceptance
    from fl.errors import NotAccepted
    from fl.evaluation.acceptance import known_criteria

    made = compress(name, registry=registry, **how)
    found = compare(registry, made)
    wanted = known_criteria(registry.run_evidence(made))
    verdict = acceptance.accept_version(registry, made) if wanted is not None and wanted.any else None
    if as_json:
        print(json.dumps({"version": made.name, **found, "accept": verdict}, indent=2))
    else:
        show(found)
        if verdict:
            acceptance.show(made.name, verdict)
        print(made.name)
    return 0 if verdict is None or verdict["accepted"] else NotAccepted.exit_status


def _rebuilt(registry: Registry, version: Version) -> tuple[nn.Module, Signature]:
    from experiments.evaluation import rebuilt

    return rebuilt(registry, version)


def _pruned(original: nn.Module, version: Version, fraction: float) -> _Smaller:
    from fl.models.arrays import GrowingModule, parameters_of, trainable_names
    from fl.packaging.pruning import PRUNE, by_magnitude

    if isinstance(original, GrowingModule):
        raise BadInput(key=PRUNE, got=f"{version.name}, whose model is made of trees", allowed="a network")
    parameters = by_magnitude(parameters_of(original), fraction, of=trainable_names(original))
    model = version.manifest["model"]
    operation = {"kind": "prune", "fraction": fraction}
    return _Smaller(_filled(original, parameters), model["target"], model["arguments"], operation, zeros_stay=True)


def _without_units(original: nn.Module, signature: Signature, version: Version, fraction: float) -> _Smaller:
    from fl.models.arrays import load_parameters, parameters_of
    from fl.models.build import build_model
    from fl.packaging.pruning import remove_units

    model = version.manifest["model"]
    target = model["target"]
    arguments, parameters = remove_units(
        original, parameters_of(original), target=target, arguments=model["arguments"], fraction=fraction
    )
    module = build_model(
        target=target, arguments=arguments, signature=signature, seed=int(version.manifest["seed"] or 0)
    )
    load_parameters(module, parameters)
    return _Smaller(module, target, arguments, {"kind": "prune_units", "fraction": fraction})


def _distilled(version: Version, signature: Signature, overrides: Sequence[str]) -> _Smaller:
    from experiments.compose import compose
    from fl.models.arrays import GrowingModule
    from fl.models.build import build_model

    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        if key != "model" and not key.startswith("model."):
            raise BadInput(key=key, got=text, allowed="model=... and model.KEY=..., as for fl simulate")
    arguments = dict(compose(overrides)["model"])
    target = str(arguments.pop("_target_"))
    module = build_model(
        target=target, arguments=arguments, signature=signature, seed=int(version.manifest["seed"] or 0)
    )
    if isinstance(module, GrowingModule):
        raise BadInput(key="model", got=target, allowed="a network: trees do not learn from soft labels here")
    return _Smaller(module, target, arguments, {"kind": "distil"})


def _filled(module: nn.Module, parameters: Mapping[str, Any]) -> nn.Module:
    """Another module like this one, with these parameters."""
    import copy

    from fl.models.arrays import load_parameters

    other = copy.deepcopy(module)
    load_parameters(other, parameters)
    return other


def _learn(
    smaller: _Smaller,
    teacher: nn.Module,
    signature: Signature,
    registry: Registry,
    version: Version,
    training: Training,
) -> dict[str, Any] | None:
    """Let it learn from the teacher; what was done is returned, None where nothing was."""
    from fl.data.training_part import kept
    from server.distillation import distil

    kind = str(smaller.operation["kind"])
    epochs = EPOCHS[kind] if training.epochs is None else training.epochs
    if epochs < (1 if kind == "distil" else 0):
        raise BadInput(key="--epochs", got=epochs, allowed="at least 1; 0 leaves a pruned model as it is")
    if not epochs:
        return None
    server = version.manifest["config"].get("server", {})
    done: dict[str, Any] = {
        "epochs": epochs,
        "temperature": training.temperature,
        "batch_size": training.batch_size or int(server.get("seeding_batch_size", 32)),
        "learning_rate": training.learning_rate or float(server.get("seeding_learning_rate", 0.05)),
    }
    examples = kept(_public(registry, version), signature)
    distil(
        smaller.module,
        teacher,
        examples,
        signature,
        **done,
        seed=int(version.manifest["seed"] or 0),
        zeros_stay=smaller.zeros_stay,
    )
    return {**done, "public_examples": len(examples)}


def _public(registry: Registry, version: Version) -> Examples:
    """The public part of the data that the version was trained on."""
    from fl.data.centre import open_centre

    folder = run_folder(registry, version) / "centre"
    if not (folder / "centre.json").is_file():
        allowed = "a version whose run's folder is there, with its public examples; or --epochs 0 for pruning alone"
        raise BadInput(key="version", got=version.name, allowed=allowed)
    return open_centre(folder).public


def _metrics(registry: Registry, version: Version, module: nn.Module, signature: Signature) -> dict[str, float]:
    """As a run measures its versions, on the same examples."""
    from experiments.evaluation import held_back
    from fl.metrics import values
    from fl.models.evaluate import evaluate
    from fl.models.tasks import derived

    examples = held_back(registry, version)
    return derived(values(evaluate(module, examples.x, examples.y, signature)))
