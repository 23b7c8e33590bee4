"""The registry's catalogue of data sets: what is recorded there, and shown to people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl.data.dataset import Dataset

RECORDED = ("origin", "licence", "sources", "schema", "task", "examples", "server_test_examples", "natural_clients")
"""What the catalogue keeps of a data set, of what can be said of it."""
PROFILE, RULES = "profile", "validate"
"""The evidence that a data set may have, by the names of the stages that find it."""


def about(settings: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """What can be said of the data of ``settings`` before they are dealt to clients."""
    from experiments.lifecycle.inputs import data_sources
    from fl.data.dataset import fingerprint
    from fl.data.describe import describe_dataset
    from fl.data.intake import schema

    return {
        **describe_dataset(dataset),
        "fingerprint": fingerprint(dataset),
        "sources": data_sources(settings),
        "schema": schema(dataset),
    }


def record(
    registry: Path | str,
    data: Mapping[str, Any],
    evidence: Mapping[str, Mapping[str, Any]],
    *,
    owner: str | None = None,
    used_by: str | None = None,
) -> str:
    """Keep ``data`` (see ``about``) in a registry, with evidence by name; returns the NAME@VERSION it goes by there."""
    from fl.registry import Registry

    kept = Registry(registry)
    facts = {**{key: data[key] for key in RECORDED}, "owner": owner}
    name = kept.record_dataset(_name(data), data["fingerprint"], facts, used_by=used_by)
    for kind, found in evidence.items():
        kept.attach_to_dataset(name, kind, found)
    return name


def _name(data: Mapping[str, Any]) -> str:
    """What a data set goes by in the catalogue: its own name, or that of the file for data of the user's own."""
    kinds = ("csv", "parquet", "jsonl", "npz", "sql")
    files = [Path(source) for source, digest in data["sources"].items() if digest is not None]
    return files[0].stem if data["name"] in kinds and files else str(data["name"])


def lines(registry: Path) -> dict[str, str]:
    """NAME@VERSION of each recorded data set, and what it is."""
    from fl.registry import Registry
    from fl.registry.datasets import SHOWN

    found = {}
    for entry in Registry(registry).datasets():
        users = entry["used_by"]
        made = f"made {len(users)} version{'s' * (len(users) != 1)}{f', the latest {users[-1]}' if users else ''}"
        name = f"{entry['name']}@{entry['version'][:SHOWN]}"
        found[name] = f"{entry['examples']:,} examples, {entry['created'][:10]}, {made}"
    return found


def facts(wanted: str, registry: Path) -> dict[str, Any]:
    """Everything that is recorded of the data set called NAME@VERSION; ``evidence`` by name, if there is any."""
    from fl.registry import Registry

    found = Registry(registry).dataset(wanted)
    evidence = Registry(registry).dataset_evidence(wanted)
    return found | ({"evidence": evidence} if evidence else {})
