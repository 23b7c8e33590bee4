"""A client whose model is an ensemble of trees: it boosts the newest version, and sends trees in place of differences.

bagging   every client of the cohort adds trees to the same version, each with its share of the step size; it
          sends those alone, and the server adds them all (Flower's FedXgbBagging)
cyclic    one client a round goes on where the one before stopped, and sends the whole (FedXgbCyclic)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clients.training import Trained
from fl.data.dataset import Examples
from fl.errors import BadInput
from fl.metrics import Mean, values
from fl.models.evaluate import evaluate
from fl.models.xgboost import TreeEnsemble, grow, newest, num_trees
from fl.parameters import Array, Parameters

BAGGING, CYCLIC = "FedXgbBagging", "FedXgbCyclic"


class Trees:
    """How trees are grown in a run. ``shares``: clients among whom the step size is shared out."""

    def __init__(self, *, cyclic: bool, shares: int, personal_rounds: int | None) -> None:
        self.cyclic, self.shares, self.personal_rounds = cyclic, shares, personal_rounds

    def rounds(self, module: TreeEnsemble, purpose: str, epochs: int | None = None) -> int:
        """Boosting rounds of a client; where it trains for itself alone, an epoch is one."""
        own = {"personal": self.personal_rounds, "local": epochs}.get(purpose)
        return own or int(module.options["local_rounds"])

    def sent(self, end: Parameters, module: Any) -> Parameters:
        """What leaves of the booster that a client ended with."""
        return end if self.cyclic else newest(end, rounds=self.rounds(module, "train"))

    def why_not(self, sent: Parameters, module: Any) -> str | None:
        """What keeps ``sent`` from being what may leave a client, in words: other trees, or another number of them."""
        if why := module.why_not(sent):
            return str(why)
        found = num_trees(sent)
        grown = self.rounds(module, "train") * int(module.options["num_parallel_tree"])
        if found < grown or (found > grown and not self.cyclic):
            return f"{found} trees, expected {'at least ' if self.cyclic else ''}{grown}"
        return None


def trees_of(module: Any, values: Mapping[str, Any]) -> Trees | None:
    """How ``module`` is trained if it is an ensemble of trees, from the settings of a run; None for a network.

    Raises BadInput where the model and the strategy do not go together.
    """
    target = str((values.get("strategy") or {}).get("_target_") or "own").rpartition(".")[2]
    if not isinstance(module, TreeEnsemble):
        if target in (BAGGING, CYCLIC):
            got = str(dict(values["model"]).get("_target_"))
            raise BadInput(key="model", got=got, allowed=f"xgboost: the strategy {target} combines its trees")
        return None
    if target not in (BAGGING, CYCLIC):
        allowed = "fedxgbbagging or fedxgbcyclic: no other can combine the trees of model=xgboost"
        raise BadInput(key="strategy", got=target, allowed=allowed)
    client = values["client"]
    if client.get("sends") == "personal":
        raise BadInput(key="client.sends", got="personal", allowed="fresh: trees have no difference to a version")
    cyclic = target == CYCLIC
    if not cyclic and module.options["local_rounds"] != 1:
        allowed = (
            "1 with fedxgbbagging, which keeps one boosting round of each client; model.num_parallel_tree adds trees"
        )
        raise BadInput(key="model.local_rounds", got=module.options["local_rounds"], allowed=allowed)
    shares = 1 if cyclic else int(values["cohort_size"])
    return Trees(cyclic=cyclic, shares=shares, personal_rounds=client.get("personal_epochs"))


def train(
    module: TreeEnsemble,
    trees: Trees,
    parameters: Mapping[str, Array],
    part: Examples,
    *,
    seed: int,
    round: int,
    client: int,
    purpose: str,
    epochs: int | None = None,
) -> Trained:
    """One client boosts ``parameters`` on its training part; the loss is that of the result there."""
    if not len(part.y):
        raise ValueError("there is no example to train on")
    rounds = trees.rounds(module, purpose, epochs)
    shares = trees.shares if purpose == "train" else 1
    end = grow(
        module,
        parameters,
        part.x,
        part.y,
        rounds=rounds,
        seed=seed,
        round=round,
        client=client,
        eta_share=1.0 / shares,
    )
    module.load_arrays(end)
    loss = values(evaluate(module, part.x, part.y, module.signature))["loss"]
    return Trained(end, rounds, module.options["eta"] / shares, Mean(loss * len(part.y), float(len(part.y))))
