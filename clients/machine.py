"""A real device's own part: answers by the device's own model, and what becomes of a newer global one.

Two threads work on it: one answers the user, the other picks up what the SuperNode's ClientApp left
(clients/received.py) and specialises it on the device's data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from clients import own_models, received, served
from clients.received import Received
from clients.setting import Setting, open_setting
from clients.state import StateStore
from fl.errors import BadInput
from fl.models import arrays
from fl.models.build import build_model
from fl.models.evaluate import outputs_of
from fl.parameters import Array, Parameters
from fl.serving.model import Model, Unanswerable
from fl.serving.on_device import Answer, Device
from fl.serving.rows import answers_of, labels_of, values_of
from fl.signature import Signature


@dataclass(frozen=True)
class Home:
    """The folders of a device below ``folder``."""

    folder: Path

    @property
    def partitions(self) -> Path:
        """Its examples: a partition store in which all other clients' parts are empty."""
        return self.folder / "partitions"

    @property
    def received(self) -> Path:
        """The newest global model."""
        return self.folder / "received"

    @property
    def models(self) -> Path:
        """Its own model."""
        return self.folder / "models"

    @property
    def states(self) -> Path:
        """What its ClientApp keeps between rounds."""
        return self.folder / "states"


@final
class Machine:
    """The device ``client``. ``built_in``: the version and settings that it was installed with."""

    def __init__(self, home: Home, *, client: int, signature: Signature, built_in: Received) -> None:
        torch.set_num_threads(1)
        self._home, self._client, self._signature = home, client, signature
        self._models = StateStore(home.models)
        self._modules: list[nn.Module] = []  # the newest run's first
        self._shape = Model("", "", signature, lambda inputs: inputs)
        self._newest = received.newest(home.received) or built_in
        for settings in (built_in.settings, self._newest.settings):
            self._modules.insert(0, _module(settings, signature))
        offered = {one.version.hash: one.version for one in (built_in, self._newest)}
        self.device = Device(self._predict, held=own_models.restored(self._models, client, offered.get))
        self.device.offer(self._newest.version)

    def catch_up(self) -> bool:
        """Pick up the newest global model and specialise it on the device's data; whether there was one to specialise.

        Answers may be given meanwhile, in another thread.
        """
        found = received.newest(self._home.received)
        if found is not None and found.version.hash != self._newest.version.hash:
            if found.settings["model"] != self._newest.settings["model"]:
                self._modules = [_module(found.settings, self._signature), *self._modules[:1]]
            self._newest = found
            self.device.offer(found.version)
        wanted = self.device.wanted
        if wanted is None:
            return False
        own = own_models.specialised(self._setting(), wanted, [self._client])[self._client]
        self.device.take(wanted, own)
        if own is not None:
            own_models.save(self._models, self._client, wanted, own)
        return True

    def answer(self, question: Any) -> dict[str, Any]:
        """The answer to one question, {"rows": [...]}; with {"error": ...} where it cannot be answered."""
        if not isinstance(question, Mapping):
            return {"error": 'expected an object, such as {"rows": [[1, 2]]}'}
        told = {"id": question["id"]} if "id" in question else {}
        began = time.perf_counter()
        try:
            x = self._shape.inputs(values_of(question.get("rows"), self._shape), stored=True)
            answer = self.device.answer(x)
        except (Unanswerable, ValueError) as error:
            return {**told, "error": str(error)}
        self._record(answer, x, question.get("label"), seconds=time.perf_counter() - began)
        return {
            **told,
            "predictions": answers_of(answer.outputs, self._signature),
            "version": answer.base.name,
            "round": answer.base.number,
            "model_sha256": answer.base.hash,
            "personal": answer.personal,
        }

    def _record(self, answer: Answer, x: Array, label: Any, *, seconds: float) -> None:
        reward = base_reward = math.nan
        if label is not None and self._signature.task != "regression":
            outputs = (answer.outputs, self._predict(answer.base.parameters, x))
            reward, base_reward = (float((labels_of(one, self._signature) == str(label)).mean()) for one in outputs)
        row = served.Served(
            at=time.time(),
            client=self._client,
            release=0,
            arm=0,
            version=answer.base.name,
            number=answer.base.number,
            behind=max(0, self._newest.version.number - answer.base.number),
            personal=answer.personal,
            failed=answer.fell_back,
            shown=True,
            seconds=seconds,
            reward=reward,
            base_reward=base_reward,
        )
        served.record(served.table_path(self._home.partitions), [row])

    def _predict(self, parameters: Parameters, x: Array) -> Array:
        """By the module that takes ``parameters``; two runs may have different models."""
        for module in self._modules:
            try:
                arrays.load_parameters(module, parameters)
            except BadInput:
                continue
            return outputs_of(module, [torch.from_numpy(x)])
        raise ValueError("the model of this version is not known here")

    def _setting(self) -> Setting:
        return open_setting(self._newest.settings, partitions=self._home.partitions, states=self._home.states)


def _module(settings: Mapping[str, Any], signature: Signature) -> nn.Module:
    arguments = dict(settings["model"])
    target = str(arguments.pop("_target_"))
    return build_model(target=target, arguments=arguments, signature=signature, seed=int(settings["seed"]))
