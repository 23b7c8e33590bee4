"""The initial global model: version 0.

pretrained    trained once on the public part of the data, which no client and no test set shares
random        as the module initialises itself
otherwise     an existing version by name, a run's folder (its best version), or a .safetensors file
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from flwr.serverapp import Grid
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import nn

from fl import wire
from fl.data.centre import Centre
from fl.data.training_part import kept
from fl.errors import BadInput
from fl.metrics import values
from fl.models import arrays, tasks
from fl.models.xgboost import TreeEnsemble, grow
from fl.parameters import Parameters, copy, mismatch
from fl.registry import Registry, Version
from fl.seeds import generator, process_wide
from server.guard import ask_for_reports
from server.strategy import evaluate_messages


@dataclass(frozen=True)
class Seeded:
    """Version 0: its parameters, how it came about, and the version it came from, where it came from one."""

    parameters: Parameters
    facts: dict[str, Any] = field(default_factory=dict)
    parent: Version | None = None


def check_seeding(
    how: str, *, centre: Centre, registry: Registry, options: Mapping[str, Any], module: nn.Module
) -> None:
    """Raise BadInput unless ``seed_model`` can do what ``how`` says, for the arrays of ``module``."""
    if how == "pretrained":
        if not len(kept(centre.public, centre.signature)):
            allowed = "random, or a dataset.public_fraction that leaves the server some public examples to train on"
            raise BadInput(key="server.seeding", got="pretrained, without a public example", allowed=allowed)
        for name in ("seeding_epochs", "seeding_batch_size", "seeding_learning_rate"):
            if not options[name] > 0:
                raise BadInput(key=f"server.{name}", got=options[name], allowed="above 0")
    elif how != "random":
        found, _ = _existing(how, registry)
        if isinstance(module, arrays.GrowingModule):
            why = module.why_not(found)
        else:
            why = mismatch(found, arrays.parameters_of(module))
        if why:
            raise BadInput(key="server.seeding", got=how, allowed=f"parameters that fit the model: {why}")


def seed_model(
    module: nn.Module, *, how: str, centre: Centre, registry: Registry, options: Mapping[str, Any], seed: int
) -> Seeded:
    """Version 0 as ``server.seeding`` says. ``module`` is freshly built, and scratch space.

    Raises BadInput with key ``server.seeding`` where ``how`` names nothing, or something of another shape.
    """
    random_model = copy(arrays.parameters_of(module))
    check_seeding(how, centre=centre, registry=registry, options=options, module=module)
    if how == "random":
        return Seeded(random_model, {"how": "random"})
    if how == "pretrained":
        return _pretrained(module, centre, options, seed)
    found, parent = _existing(how, registry)
    return Seeded({name: found[name] for name in random_model}, {"how": "existing", "from": how}, parent)


def _pretrained(module: nn.Module, centre: Centre, options: Mapping[str, Any], seed: int) -> Seeded:
    public, epochs = kept(centre.public, centre.signature), int(options["seeding_epochs"])
    x, y = public.x, public.y
    facts = {"how": "pretrained", "public_examples": len(y), "epochs": epochs}
    if isinstance(module, TreeEnsemble):  # an epoch is a boosting round
        return Seeded(grow(module, arrays.parameters_of(module), x, y, rounds=epochs, seed=seed), facts)
    inputs, targets = arrays.to_inputs(x, centre.signature), arrays.to_targets(y, centre.signature)
    fit(
        module,
        lambda batch: tasks.loss(centre.signature, module(inputs[batch]), targets[batch]),
        num_examples=len(y),
        epochs=epochs,
        batch_size=int(options["seeding_batch_size"]),
        learning_rate=float(options["seeding_learning_rate"]),
        seed=seed,
    )
    return Seeded(copy(arrays.parameters_of(module)), facts)


def fit(
    module: nn.Module,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    *,
    num_examples: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Train ``module`` in place by SGD with momentum 0.9, and a step size that falls linearly to a tenth.

    loss_of      the loss of a batch, from the places of its examples
    after_step   is called after every step, without gradients
    """
    weights: list[torch.Tensor] = [p for p in module.parameters() if p.requires_grad]
    momentum = [torch.zeros_like(w) for w in weights]
    orders = generator(seed, purpose="seeding/shuffle")
    steps, done = epochs * -(-num_examples // batch_size), 0
    module.train()
    with process_wide(seed, purpose="seeding/module"):
        for _ in range(epochs):
            for batch in torch.from_numpy(orders.permutation(num_examples)).split(batch_size):
                gradients = torch.autograd.grad(loss_of(batch), weights)
                with torch.no_grad():
                    torch._foreach_mul_(momentum, 0.9)
                    torch._foreach_add_(momentum, gradients)
                    torch._foreach_add_(weights, momentum, alpha=-learning_rate * (1 - 0.9 * done / steps))
                    after_step()
                done += 1
    module.eval()


def _existing(how: str, registry: Registry) -> tuple[Parameters, Version | None]:
    if how.endswith(".safetensors"):
        try:
            return dict(load_file(how)), None
        except (OSError, SafetensorError) as error:
            raise BadInput(key="server.seeding", got=how, allowed=f"a safetensors file ({error})") from error
    name = f"{how}:best" if Path(how).is_dir() else how
    try:
        version = registry.version(name)
    except BadInput as error:
        allowed = f"pretrained, random, a .safetensors file, or a version: {error.allowed}"
        raise BadInput(key="server.seeding", got=how, allowed=allowed) from error
    return registry.parameters(version), version


def share_better_than_random(
    grid: Grid, nodes: Sequence[int], parameters: Parameters, random_model: Parameters
) -> float | None:
    """The share of ``nodes`` for whose own test parts ``parameters`` have a lower loss than a random model.

    None where no client could tell (no test parts).
    """
    losses = [_losses(grid, nodes, one) for one in (parameters, random_model)]
    both = losses[0].keys() & losses[1].keys()
    return sum(losses[0][node] < losses[1][node] for node in both) / len(both) if both else None


def _losses(grid: Grid, nodes: Sequence[int], parameters: Parameters) -> dict[int, float]:
    content = wire.evaluate_content(wire.array_record(parameters), round=0, personal=False)
    found = ask_for_reports(grid, evaluate_messages(nodes, content), round=0)
    losses = {report.client: values(report.statistics).get("loss") for report in found}
    return {client: loss for client, loss in losses.items() if loss is not None}
