"""Clients of a unit train from the same parameters: stacked where the setting allows it, else one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

from clients import boosting
from clients.setting import Setting
from clients.training import Trained, TrainingOptions, train
from clients.vectorized import train_stacked
from fl.algorithms.algorithm import Correction
from fl.errors import ClientFailed, RefusedUpdate, StorageFailed
from fl.models.xgboost import TreeEnsemble
from fl.parameters import Array

T = TypeVar("T")
Failure: TypeAlias = RefusedUpdate | ClientFailed


@dataclass(frozen=True)
class Job:
    """A client that is to train, and the correction of its gradients."""

    client: int
    correction: Correction


def attempt(client: int, work: Callable[[], T]) -> T | Failure:
    """What ``work`` returns, or why it failed: a device's fault of any kind is that device's alone."""
    try:
        return work()
    except (RefusedUpdate, ClientFailed) as failure:
        return failure
    except StorageFailed:
        raise  # this machine's fault, and no device's
    except Exception as error:  # noqa: BLE001  see above
        return ClientFailed(client=client, reason=f"{type(error).__name__}: {error}")


def train_clients(
    setting: Setting,
    parameters: Mapping[str, Array],
    jobs: Sequence[Job],
    *,
    options: TrainingOptions,
    round: int,
    purpose: str = "train",
) -> Iterator[tuple[int, Trained | Failure]]:
    """Each job's client with what its training gave, in the order given.

    If a stack fails as a whole, each client trains by itself, so that only whoever is at fault fails.
    """
    for first in range(0, len(jobs), setting.stack):
        some = jobs[first : first + setting.stack]
        together = _train_together(setting, parameters, some, options=options, round=round, purpose=purpose)
        for job in some:
            if job.client in together:
                yield job.client, together[job.client]
            else:
                alone = partial(_train_alone, setting, parameters, job, options=options, round=round, purpose=purpose)
                yield job.client, attempt(job.client, alone)


def _train_together(
    setting: Setting,
    parameters: Mapping[str, Array],
    jobs: Sequence[Job],
    *,
    options: TrainingOptions,
    round: int,
    purpose: str,
) -> dict[int, Trained]:
    if setting.one_by_one is not None:
        return {}
    began = time.perf_counter()
    try:
        # Who has nothing to train on fails alone.
        jobs = [job for job in jobs if setting.num_kept(job.client)]
        if not jobs:
            return {}
        trained = train_stacked(
            setting.module,
            parameters,
            [setting.trained_on(job.client, round=round, purpose=purpose) for job in jobs],
            setting.signature,
            options,
            corrections=[job.correction for job in jobs],
            seed=setting.seed,
            round=round,
            clients=[job.client for job in jobs],
            purpose=purpose,
        )
    except Exception:  # noqa: BLE001  one client's bad examples must not take the others down
        return {}
    seconds = (time.perf_counter() - began) / len(jobs)
    return {job.client: result.timed(seconds) for job, result in zip(jobs, trained, strict=True)}


def _train_alone(
    setting: Setting,
    parameters: Mapping[str, Array],
    job: Job,
    *,
    options: TrainingOptions,
    round: int,
    purpose: str,
) -> Trained:
    began = time.perf_counter()
    examples = setting.trained_on(job.client, round=round, purpose=purpose)
    if setting.trees is not None:
        assert isinstance(setting.module, TreeEnsemble), "it is what setting.trees are for"
        grown = boosting.train(
            setting.module,
            setting.trees,
            parameters,
            examples,
            seed=setting.seed,
            round=round,
            client=job.client,
            purpose=purpose,
            epochs=options.local_epochs,
        )
        return grown.timed(time.perf_counter() - began)
    trained = train(
        setting.module,
        parameters,
        examples,
        setting.signature,
        options,
        correction=job.correction,
        seed=setting.seed,
        round=round,
        client=job.client,
        purpose=purpose,
        weights=setting.treatment.weights(examples.y),
    )
    return trained.timed(time.perf_counter() - began)
