"""The names a person may give for a version.

RUN:ROUND   RUN:latest   RUN:best   RUN (its latest)      RUN is a run's id or its folder
champion    challenger
a1b2c3      six digits or more of a version's hash, or of its parameters' hash
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from fl.errors import BadInput
from fl.files import read_json
from fl.registry.aliases import alias_version
from fl.registry.layout import ALIASES, rounds, run_ids
from fl.registry.log import live_entries
from fl.registry.runs import list_runs
from fl.registry.versions import Version, best, committed, latest

_SUFFIX = re.compile(r"(?P<run>.+):(?P<which>\d{1,6}|latest|best)")
_HASH = re.compile(r"[0-9a-fA-F]{6,64}")


def resolve(folder: Path, name: str) -> Version:
    """The version that ``name`` means. Raises BadInput with what there is if it means none, or several."""
    if name in ALIASES:
        return _alias(folder, name)
    split = _SUFFIX.fullmatch(name)
    readings = [(name, "latest"), *([(split["run"], split["which"])] if split else [])]
    for base, which in readings:  # the whole first: a folder's name may end in a colon and a number
        run_id = _run_id(folder, base)
        if run_id is not None:
            return _of_run(folder, run_id, which, name)
    if _HASH.fullmatch(name):
        return _hashed(folder, name.lower())
    raise BadInput(key="version", got=name, allowed=_what_exists(folder, readings[-1][0]))


def _alias(folder: Path, alias: str) -> Version:
    version = alias_version(folder, alias)
    if version is None:
        raise BadInput(key="version", got=f"{alias}, which names no version yet", allowed=_what_exists(folder, alias))
    return version


def _run_id(folder: Path, base: str) -> str | None:
    """The run that ``base`` names: an id, or the folder of a run that this registry knows."""
    known = run_ids(folder)
    if base in known:
        return base
    path = Path(base).expanduser()
    if not path.is_dir():
        return None
    here = [
        r["run_id"] for r in list_runs(folder) if r.get("run_dir") and Path(r["run_dir"]).resolve() == path.resolve()
    ]
    summary = path / "summary.json"
    if not here and summary.is_file():  # the folder was moved since
        here = [read_json(summary).get("run_id")]
    return here[-1] if here and here[-1] in known else None


def _of_run(folder: Path, run_id: str, which: str, name: str) -> Version:
    known = rounds(folder, run_id)
    if not known:
        raise BadInput(key="version", got=f"{name}, a run without a committed round", allowed=_what_exists(folder, ""))
    if which.isdecimal() and int(which) not in known:
        allowed = f"the rounds of {run_id}: {known[0]} to {known[-1]}" + ("" if _no_gap(known) else ", with gaps")
        raise BadInput(key="version", got=name, allowed=allowed)
    if which.isdecimal():
        (version,) = committed(folder, run_id, [int(which)])
        return version
    found = best(folder, run_id) if which == "best" else latest(folder, run_id)
    assert found is not None  # there are rounds
    return found


def _no_gap(known: list[int]) -> bool:
    return known[-1] - known[0] + 1 == len(known)


def _hashed(folder: Path, prefix: str) -> Version:
    """The version whose hash, or whose parameters' hash, starts with ``prefix``.

    Versions with equal parameters are one answer, the first of them: they are the same model.
    """
    entries = live_entries(folder)
    by_version = [key for key, entry in entries.items() if entry.hash.startswith(prefix)]
    by_model = [key for key, entry in entries.items() if entry.model_sha256.startswith(prefix)]
    same_model = len({entries[key].model_sha256 for key in by_model}) == 1
    if len(by_version) + (1 if same_model else len(by_model)) == 1:
        found = [v for run_id, round in by_version or by_model for v in committed(folder, run_id, [round])]
        return min(found, key=lambda v: v.manifest["created"])
    matches = [f"{run_id}:{round}" for run_id, round in (*by_version, *by_model)]
    if matches:
        raise BadInput(key="version", got=f"{prefix}, which several start with", allowed=", ".join(matches[:8]))
    raise BadInput(key="version", got=prefix, allowed=_what_exists(folder, prefix))


def _what_exists(folder: Path, wanted: str) -> str:
    """Words for what could have been named: the closest names first."""
    known = [run_id for run_id in run_ids(folder) if rounds(folder, run_id)]
    if not known:
        return f"nothing yet: no version is in {folder}"
    close = get_close_matches(wanted, known if wanted in ALIASES else [*known, *ALIASES], n=3, cutoff=0.5)
    shown = close + [run for run in reversed(known) if run not in close][: 5 - len(close)]
    return f"RUN:ROUND, RUN:best, RUN:latest, champion, challenger or a hash; with RUN such as {', '.join(shown)}"
