"""What changed from one version to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fl.parameters import Parameters, norm
from fl.registry.versions import Version, load_parameters

Change: TypeAlias = tuple[Any, Any]
_SECTIONS = ("dataset", "model", "code", "signature")


@dataclass(frozen=True)
class Difference:
    """From version ``a`` to version ``b``; wherever there are two values, that of ``a`` comes first.

    norm          Euclidean norm of b - a over the parameters that both have in one shape; ``norms`` the same for each
    relative      ``norm`` divided by that of the same parameters in ``a``; None if that is 0
    reshaped      parameters that only one of them has, or in another shape: the two shapes, None for none
    config, dataset, model, code, signature     dotted key -> the two values, where they differ; None for none
    metrics       name -> the two values, of every metric that either has
    """

    a: str
    b: str
    same_parameters: bool
    norm: float
    relative: float | None
    norms: dict[str, float]
    reshaped: dict[str, Change]
    metrics: dict[str, Change]
    config: dict[str, Change]
    dataset: dict[str, Change]
    model: dict[str, Change]
    code: dict[str, Change]
    signature: dict[str, Change]


def diff(folder: Path, a: Version, b: Version) -> Difference:
    """The difference between two versions. Raises BadInput if the parameters of one were pruned."""
    old, new = load_parameters(folder, a), load_parameters(folder, b)
    both = [name for name in old if name in new and old[name].shape == new[name].shape]
    # In float64, whatever the dtype: integers must not wrap, nor the difference of close numbers lose its digits.
    change: Parameters = {n: new[n].astype(np.float64) - old[n].astype(np.float64) for n in both}
    before = norm({n: old[n].astype(np.float64) for n in both})
    metrics = sorted(a.metrics.keys() | b.metrics.keys())
    return Difference(
        a=a.name,
        b=b.name,
        same_parameters=a.model_sha256 == b.model_sha256,
        norm=norm(change),
        relative=norm(change) / before if before else None,
        norms={n: norm({n: change[n]}) for n in both},
        reshaped={n: (_shape(old, n), _shape(new, n)) for n in sorted((old.keys() | new.keys()) - set(both))},
        metrics={n: (a.metrics.get(n), b.metrics.get(n)) for n in metrics},
        config=changes(a.manifest.get("config"), b.manifest.get("config")),
        **{section: changes(a.manifest.get(section), b.manifest.get(section)) for section in _SECTIONS},
    )


def changes(a: Any, b: Any) -> dict[str, Change]:
    """Dotted keys at which two nested mappings differ, with both values.

    >>> changes({"client": {"lr": 0.1, "epochs": 1}}, {"client": {"lr": 0.2, "epochs": 1}})
    {'client.lr': (0.1, 0.2)}
    """
    old, new = dict(_leaves(a or {})), dict(_leaves(b or {}))
    return {k: (old.get(k), new.get(k)) for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            out += _leaves(value, f"{prefix}{key}.")
        else:
            out.append((f"{prefix}{key}", value))
    return out


def _shape(parameters: Parameters, name: str) -> list[int] | None:
    return list(parameters[name].shape) if name in parameters else None
