"""Which versions keep their parameters.

Pruning removes parameters, never a manifest: who came from whom, and how good it was, stays known. Kept whatever the
rule are a run's version 0, its best and its latest, every version that an alias names or could be rolled back to, that
an open release tries, and that another run was started from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import TypeAlias

from fl.errors import BadInput
from fl.registry.aliases import stack
from fl.registry.layout import ALIASES, blobs_folder, locked, run_ids
from fl.registry.log import append, live_entries, read_log
from fl.registry.releases import open_releases
from fl.registry.versions import Version, best_of, list_versions

KeepRule: TypeAlias = Callable[[Sequence[int]], set[int]]


def keep_rule(keep: str) -> KeepRule:
    """From the committed rounds, ascending, to those that keep their parameters.

    ``keep`` is ``all``, ``last:K`` (the newest K) or ``every:K`` (rounds 0, K, 2K ...), K at least 1. Raises BadInput.

    >>> sorted(keep_rule("every:3")(range(8)))
    [0, 3, 6]
    """
    kind, _, number = str(keep).partition(":")
    if keep == "all":
        return set
    if kind in ("last", "every") and number.isascii() and number.isdecimal() and int(number) >= 1:
        k = int(number)
        return (
            (lambda rounds: set(rounds[-k:])) if kind == "last" else (lambda rounds: {r for r in rounds if r % k == 0})
        )
    raise BadInput(key="server.keep_versions", got=keep, allowed="all, last:K or every:K, with K an integer from 1")


def prune(folder: Path, run_id: str, keep: str) -> list[Version]:
    """Remove the parameters of a run's versions that ``keep`` does not keep; see ``Registry.prune``."""
    rule = keep_rule(keep)
    if keep == "all":
        return []
    with locked(folder):
        versions = list_versions(folder, run_id)
        if not versions:
            return []
        entries = live_entries(folder)
        gone = {run: read_log(folder, run).pruned for run in run_ids(folder)}
        kept = rule([v.round for v in versions]) | {0, versions[-1].round, _best_round(versions)}
        wanted = {digest for alias in ALIASES for _, digest in stack(folder, alias)}
        wanted |= {arm.version for release in open_releases(folder) for arm in release.arms}
        wanted |= {e.parent for (run, _), e in entries.items() if run != run_id and e.parent is not None}
        leaving = [v for v in versions if v.round not in kept | gone[run_id] and v.hash not in wanted]
        if leaving:
            append(folder, run_id, "prune", *(entries[run_id, v.round] for v in leaving))
            gone[run_id] |= {v.round for v in leaving}
        _sweep(folder, {e.model_sha256 for (run, r), e in entries.items() if r not in gone[run] or e.hash in wanted})
    return leaving


def _best_round(versions: Sequence[Version]) -> int:
    best = best_of(versions)
    return versions[-1].round if best is None else best.round


def _sweep(folder: Path, kept: Set[str]) -> None:
    """Remove every file of parameters but ``kept``, and what writers that died left. The lock is held."""
    for path in blobs_folder(folder).iterdir():
        if path.suffix == ".tmp" or (path.suffix == ".safetensors" and path.stem not in kept):
            path.unlink()
