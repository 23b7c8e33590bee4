"""Simulated devices that answer their simulated users, while rounds go on.

Each user asks about examples of its own, now and then; its device answers at once, by what it has. The newest version
is picked up when a device is used, and specialised on its own data between answers, as many devices at once as train
together. What comes out of it stays in the devices' own stores: rows in the table of clients/served.py, models by
device. The store of the run's rounds is another one, so that a run has the same bits with and without users.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, final

import numpy as np

from clients import own_models, served
from clients.served import Served
from clients.setting import Setting
from clients.state import StateStore
from fl.data.dataset import Examples
from fl.metrics import values
from fl.models import arrays, tasks
from fl.models.arrays import to_targets
from fl.models.evaluate import predict
from fl.parameters import Array, Parameters
from fl.seeds import generator
from fl.serving.on_device import Answer, Device, Global

NO_ARM = -1
"""Of answers that a device gave by an older version, while it was still at work on its arm's."""


@dataclass(frozen=True)
class Assigned:
    """What a device is to answer by: ``version``.

    newest    the newest version's number, to tell how far behind an answer is
    release   the number of a release (fl.messages.release_number), 0: of none
    arms      its versions' hashes, and the number of each one's arm
    mirrors   versions that answer in secret beside it
    fallback  what a device that has no version yet is given first, to have something to go back to
    """

    version: Global
    newest: int
    release: int = 0
    arms: Mapping[str, int] = field(default_factory=dict)
    mirrors: tuple[Global, ...] = ()
    fallback: Global | None = None

    def arm(self, digest: str) -> int:
        """The arm of a version: that of none where it has no part in the release."""
        return self.arms.get(digest, NO_ARM if self.release else 0)


Assign: TypeAlias = Callable[[int], Assigned | None]
"""client -> what it is to answer by now; None: there is no version yet, or no answers are to be given."""


@final
class Fleet:
    """The devices of ``clients``.

    known    the version of a hash, for devices that were switched off; None where it cannot be had
    models   where they keep their own models
    clock    seconds since 1970
    """

    def __init__(
        self,
        setting: Setting,
        clients: Sequence[int],
        assign: Assign,
        *,
        known: Callable[[str], Global | None] = lambda digest: None,
        models: StateStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._setting, self._clients, self._assign, self._models = setting, list(clients), assign, models
        self._table = served.table_path(setting.partitions)
        self._loaded: Parameters | None = None
        self._behind: deque[tuple[int, int]] = deque()  # (client, arm) in the order in which they were used
        self._waiting: set[tuple[int, int]] = set()  # the same, to look up
        self._rows: list[Served] = []
        self._draws = {c: generator(setting.seed, purpose="user", client=c) for c in self._clients}
        self._devices = {
            (c, 0): Device(self._predict, held=own_models.restored(models, c, known)) for c in self._clients
        }
        self.unanswered = 0

    def use(self, client: int) -> Answer | None:
        """One question of ``client``'s user, answered on its device; None where there is none to give."""
        assigned = self._assign(client)
        if assigned is None:
            self.unanswered += 1
            return None
        asked = self._question(client)
        began = time.perf_counter()
        if assigned.fallback is not None and self._devices[client, 0].held is None:
            self._devices[client, 0].offer(assigned.fallback)
        device = self._offered(client, 0, assigned.version)
        try:
            answer = device.answer(asked.x)
        except ValueError:  # not one of its models gives numbers
            self.unanswered += 1
            return None
        row = self._row(client, assigned, answer, time.perf_counter() - began, asked)
        self._rows.append(row)
        for version in assigned.mirrors:
            self._rows.append(self._in_secret(client, version, assigned, answer, asked))
        return answer

    def between_answers(self) -> int:
        """Specialise what devices were used for and have no own model from: one stack of them; how many those were."""
        some: list[tuple[int, int]] = []
        wanted: Global | None = None
        while self._behind and len(some) < self._setting.stack:
            key = self._behind[0]
            its = self._devices[key].wanted
            if its is not None and wanted is not None and its.hash != wanted.hash:
                break
            self._waiting.discard(self._behind.popleft())
            if its is not None:
                wanted = its
                some.append(key)
        if wanted is not None:
            self._specialise(wanted, some)
        return len(some)

    def keep(self) -> None:
        """Write down what was answered since the last time."""
        served.record(self._table, self._rows)
        self._rows = []

    @property
    def to_specialise(self) -> int:
        """Devices that wait for their own model of a version."""
        return len(self._behind)

    def _offered(self, client: int, arm: int, version: Global) -> Device:
        """The device, or as ``arm`` above 0 the part of it that answers in secret, given ``version`` to answer by."""
        device = self._devices.get((client, arm))
        if device is None:
            device = self._devices[client, arm] = Device(self._predict)
        device.offer(version)
        if device.wanted is not None and (client, arm) not in self._waiting:
            self._behind.append((client, arm))
            self._waiting.add((client, arm))
        return device

    def _in_secret(self, client: int, version: Global, assigned: Assigned, shown: Answer, asked: Examples) -> Served:
        """The row of a mirror. Whatever becomes of it, the user has the answer by now."""
        began = time.perf_counter()
        secret = replace(assigned, version=version)
        try:
            answer = self._offered(client, 1 + assigned.arm(version.hash), version).answer(asked.x)
        except (ValueError, ArithmeticError):
            answer = Answer(np.full_like(shown.outputs, np.nan), version, personal=False, fell_back=True)
        row = self._row(client, secret, answer, time.perf_counter() - began, asked)
        same = bool((_said(answer.outputs) == _said(shown.outputs)).all()) and not answer.fell_back
        return replace(row, shown=False, compared=True, agreed=same)

    def _row(self, client: int, assigned: Assigned, answer: Answer, seconds: float, asked: Examples) -> Served:
        base = self._predict(answer.base.parameters, asked.x) if answer.personal else answer.outputs
        return Served(
            at=self._clock(),
            client=client,
            release=assigned.release,
            arm=assigned.arm(assigned.version.hash if answer.fell_back else answer.base.hash),
            version=answer.base.name,
            number=answer.base.number,
            behind=max(0, assigned.newest - answer.base.number),
            personal=answer.personal,
            failed=answer.fell_back,
            shown=True,
            seconds=seconds,
            reward=self._reward(answer.outputs, asked),
            base_reward=self._reward(base, asked),
        )

    def _question(self, client: int) -> Examples:
        """An example that the user asks about: of its test part, which no model has trained on, where it has one."""
        partition = self._setting.store.partition(client)
        part = next((p for p in (partition.test, partition.validation, partition.train) if len(p)), partition.train)
        row = int(self._draws[client].integers(len(part)))
        return Examples(part.x[row : row + 1], part.y[row : row + 1])

    def _reward(self, outputs: Array, asked: Examples) -> float:
        """How right outputs are, 0 to 1: the share that is right, or of a regression exp(-loss)."""
        import torch

        if not np.isfinite(outputs).all():
            return 0.0
        signature = self._setting.signature
        found = values(tasks.statistics(signature, torch.from_numpy(outputs), to_targets(asked.y, signature)))
        return found["accuracy"] if "accuracy" in found else math.exp(-found["loss"])

    def _predict(self, parameters: Parameters, x: Array) -> Array:
        if self._loaded is not parameters:
            arrays.load_parameters(self._setting.module, parameters)
            self._loaded = parameters
        return predict(self._setting.module, x, self._setting.signature)

    def _specialise(self, base: Global, some: Sequence[tuple[int, int]]) -> None:
        self._loaded = None  # training uses the same module
        made = own_models.specialised(self._setting, base, sorted({client for client, _ in some}))
        for client, arm in some:
            parameters = made[client]
            self._devices[client, arm].take(base, parameters)
            if parameters is not None and arm == 0:
                own_models.save(self._models, client, base, parameters)


def _said(outputs: Array) -> Array:
    """What outputs say to a user: the class or token, or a number to three digits."""
    return outputs.argmax(axis=-1) if outputs.shape[-1] > 1 else np.round(outputs, 3)


def serve(
    fleet: Fleet,
    clients: Sequence[int],
    *,
    seed: int,
    rate: float,
    over: Callable[[], bool],
    beside: Callable[[], None],
) -> None:
    """Let users ask, ``rate`` questions a second between them at random moments, until ``over``.

    ``beside`` is called about four times a second, between answers.
    """
    draw = generator(seed, purpose="users")
    due = last = time.monotonic()
    while not over():
        for _ in range(20):  # then somebody else may have a turn, however many wait
            if time.monotonic() < due:
                break
            fleet.use(clients[int(draw.integers(len(clients)))])
            due += float(draw.exponential(1.0 / rate))
        if time.monotonic() - last >= 0.25:
            fleet.keep()
            beside()
            last = time.monotonic()
        if not fleet.between_answers():
            time.sleep(max(0.0, min(due - time.monotonic(), 0.05)))
    fleet.keep()
