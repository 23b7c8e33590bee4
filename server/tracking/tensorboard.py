"""A run as TensorBoard shows it. One event a round, written before the next round starts.

Scalars   global/<metric>, clients/<metric>/{min,p10,median,p90,max}, train/<metric>, personal/<name>,
          clients/<count>, bytes/{down,up}, seconds/<phase>
Histograms   clients/update_norm
Images    global/confusion, data/partition; clients/distribution once `fl clients` was asked
Text      config
HParams   the config's plain values against the final metrics
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import yaml
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.hparams import metadata as hparams_metadata

from fl.plain import plain
from server.pictures import confusion_picture
from server.records import RoundRecord, RunRecord, RunSummary
from server.tracking import events, summaries
from server.tracking.files import EXPECTED
from server.tracking.summaries import Hyperparameter, Value

FOLDER = "tensorboard"
PARTITION_TAG = "data/partition"
CONFIG_TAG = "config"
RUN_TAGS = frozenset(
    {
        PARTITION_TAG,
        CONFIG_TAG,
        CONFIG_SUMMARY_TAG,
        hparams_metadata.EXPERIMENT_TAG,
        hparams_metadata.SESSION_START_INFO_TAG,
        hparams_metadata.SESSION_END_INFO_TAG,
    }
)
"""What belongs to the run and not to a round: written anew by every try, at step 0."""

NOT_HYPERPARAMETERS = frozenset(
    {
        "run_dir",
        "registry_dir",
        "server.tensorboard",
        "server.terminal",
        "engine.name",
        "engine.num_actors",
        "engine.address",
    }
)
"""Settings that a result does not depend on."""

USUALLY_COMPARED = ("algorithm", "client.learning_rate", "partition", "seed", "strategy")

DESCRIPTIONS = {
    "global": "The global model on the server's held-out test set.",
    "train": "Mean over the cohort's clients while they trained, weighted by their examples.",
    "personal": "Personal models against the global model, each on its client's own test part.",
    "bytes": "What real clients of the cohort would have moved in this round.",
    "seconds": "Wall time of this phase of the round.",
}

CHARTS = {
    "Global model": {"loss": ["^global/loss$", "^train/loss$"], "accuracy": ["^global/accuracy$"]},
    "Over clients": {
        name: [f"^clients/{name}/{point}$" for point in ("max", "p90", "median", "p10", "min")]
        for name in ("accuracy", "loss")
    },
    "Round": {
        "clients": ["^clients/(asked|answered|failed|refused|late|quarantined)$"],
        "seconds": ["^seconds/"],
        "bytes": ["^bytes/"],
    },
}

SUCCEEDED = {"finished": True, "stopped early": True, "stopped by faults": False, "interrupted": None}


@final
class TensorBoardObserver:
    """Writes tensorboard/ in the run's folder. A resumed run leaves each step exactly once in it."""

    def __init__(self) -> None:
        self._run: RunRecord | None = None
        self._path: Path | None = None
        self._described: set[str] = set()

    def on_start(self, run: RunRecord) -> None:
        kept: set[int] = set()

        def of_an_earlier_round(event: Event) -> bool:
            values = event.summary.value
            wanted = bool(values) and event.step < run.first_round and values[0].tag not in RUN_TAGS
            kept.update({event.step} if wanted else ())
            return wanted

        self._run = run
        self._path = events.begin(run.run_dir / FOLDER, keep=of_an_earlier_round)
        for value in run_values(run):
            events.append(self._path, [value], step=0)
        if run.partition_picture and run.partition_picture.is_file():
            png, about = run.partition_picture.read_bytes(), "Examples of each class on each client."
            events.append(self._path, [summaries.picture(PARTITION_TAG, png, description=about)], step=0)
        for record in run.earlier:
            if record.round not in kept:  # the file was damaged there
                self.on_round(record)

    def on_phase(self, round: int, phase: str, done: int, of: int) -> None:
        """Nothing is written within a round."""

    def on_round(self, record: RoundRecord) -> None:
        assert self._run and self._path, "on_start comes first"
        values = list(round_values(record, class_names=self._run.signature.class_names))
        for value in values:
            self._describe(value)
        events.append(self._path, values, step=record.round)

    def on_end(self, summary: RunSummary) -> None:
        assert self._path, "on_start comes first"
        events.append(self._path, [summaries.session_end(succeeded=SUCCEEDED.get(summary.status))], step=0)
        events.sync(self._path)

    def _describe(self, value: Value) -> None:
        """TensorBoard takes the description of a tag from its first value alone."""
        if value.tag not in self._described:
            self._described.add(value.tag)
            value.metadata.summary_description = DESCRIPTIONS.get(value.tag.partition("/")[0], "")


def show_picture(run_dir: Path, tag: str, png: bytes, *, step: int, description: str) -> None:
    """Put a picture among those of a run that is over, in place of one of that tag; nothing where it has no files."""
    folder = run_dir / FOLDER
    if folder.is_dir():
        path = events.begin(folder, keep=lambda event: bool(event.summary.value) and event.summary.value[0].tag != tag)
        events.append(path, [summaries.picture(tag, png, description=description)], step=step)
        events.sync(path)


def run_values(run: RunRecord) -> Iterator[Value]:
    """What is known of a run before its first round."""
    chosen = hyperparameters(run.config) | {"engine": run.engine}
    metrics = {f"global/{name}": f"final {name}" for name in sorted(EXPECTED[run.signature.task])}
    yield summaries.experiment(chosen, first=USUALLY_COMPARED, metrics=metrics)
    yield summaries.session_start(chosen, group=run.run_id)
    yield summaries.layout(CHARTS)
    yield summaries.text(CONFIG_TAG, f"```yaml\n{yaml.safe_dump(plain(run.config), sort_keys=False)}```\n")


def round_values(record: RoundRecord, *, class_names: Sequence[str]) -> Iterator[Value]:
    """What a round adds, always in the same order."""
    groups: Mapping[str, Mapping[str, float]] = {
        "global": record.metrics,
        "train": record.train_metrics,
        **{f"clients/{metric}": points for metric, points in record.client_metrics.items()},
        "personal": record.personal,
        "clients": {**record.clients, "quarantined": len(record.quarantined)},
        "bytes": record.bytes,
        "seconds": record.seconds,
    }
    for group, numbers in groups.items():
        for name, number in numbers.items():
            yield summaries.scalar(f"{group}/{name}", number)
    norms = [norm for norm in record.update_norms if math.isfinite(norm)]
    if norms:
        yield summaries.histogram("clients/update_norm", norms)
    if record.confusion is not None:
        accuracy = record.metrics.get("accuracy")
        title = f"Round {record.round}" + ("" if accuracy is None else f": accuracy {accuracy:.2%}")
        png = confusion_picture(record.confusion, class_names=class_names, title=title)
        yield summaries.picture("global/confusion", png)


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Hyperparameter]:
    """The plain values of a nested config by dotted name. A group is named by its ``name``, or by what it builds.

    >>> hyperparameters({"seed": 1, "algorithm": {"_target_": "fl.algorithms.fedprox.build", "mu": 0.1}})
    {'seed': 1, 'algorithm': 'fedprox', 'algorithm.mu': 0.1}
    >>> hyperparameters({"strategy": {"_target_": None}, "dataset": {"name": "mnist"}, "run_dir": "outputs/1"})
    {'strategy': 'own', 'dataset': 'mnist'}
    """
    found: dict[str, Hyperparameter] = {}

    def walk(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            name, group = f"{prefix}{key}", prefix.rstrip(".")
            if name in NOT_HYPERPARAMETERS:
                continue
            if isinstance(value, Mapping):
                walk(value, f"{name}.")
            elif group and key == "_target_":
                found[group] = str(value).removesuffix(".build").rpartition(".")[2] if value else "own"
            elif isinstance(value, bool | int | float | str):
                found[group if group and key == "name" else name] = value

    walk(config, "")
    return found
