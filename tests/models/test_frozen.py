"""Transfer: a run that starts from a version and trains some of its layers; the others keep their bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from experiments.run import simulate
from fl.errors import BadInput
from fl.files import read_json
from fl.models.frozen import freeze
from fl.registry import Registry


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_what_matches_is_frozen_and_the_rest_is_trained():
    module = network()
    assert freeze(module, ["0.*", "1.running*"]) == ("0.weight", "0.bias", "1.running_mean", "1.running_var")
    moved = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert moved == ["1.weight", "1.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize("patterns, words", [(["conv*"], "0.weight"), (["*"], "something to train")])
def test_patterns_that_cannot_be_are_refused(patterns, words):
    with pytest.raises(BadInput, match=words):
        freeze(network(), patterns)


@pytest.mark.parametrize(
    "strategy",
    [
        (),
        pytest.param(("algorithm=scaffold",), marks=pytest.mark.slow),
        pytest.param(("strategy=fedavg",), id="flower's own"),
    ],
)
def test_frozen_layers_of_an_existing_version_keep_their_bits(settings, tmp_path, strategy):
    model = ("model=mlp", "model.hidden=[5]", "evaluate_clients_every=null")
    simulate(settings(*model, name="first"))
    again = settings(*model, *strategy, "server.seeding=first:best", "client.frozen=[1.*]", name="again")
    run_dir = simulate(again)
    registry = Registry(tmp_path / "registry")
    start, end = (registry.parameters(f"again:{round}") for round in (0, 2))
    best = registry.version("first:best")
    assert {n: v.tobytes() for n, v in start.items()} == {n: v.tobytes() for n, v in registry.parameters(best).items()}
    frozen = [name for name in start if name.startswith("1.")]
    assert frozen and len(frozen) < len(start)
    for name in start:
        assert (start[name].tobytes() == end[name].tobytes()) == (name in frozen), name
    # Its lineage goes back to the version it came from.
    assert best.hash in [version.hash for version in registry.lineage("again:2")]
    assert "frozen parameters" in read_json(run_dir / "summary.json")["training"]


def test_a_pattern_of_nothing_ends_before_any_training(settings):
    with pytest.raises(BadInput, match=r"client\.frozen"):
        simulate(settings("client.frozen=[conv*]"))
    assert not Path(settings()["run_dir"]).exists()
