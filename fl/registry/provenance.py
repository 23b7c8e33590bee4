"""Which code made a version."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

PROJECT = Path(__file__).resolve().parents[2]


class CodeState(TypedDict):
    """``commit`` is the full hash, ``dirty`` whether files differ from it; None where there is no git to say."""

    commit: str | None
    dirty: bool | None


@lru_cache(maxsize=8)
def code_state(project: Path = PROJECT) -> CodeState:
    """The state of the git repository whose root is ``project``, asked once a process (about 10 ms, no network).

    A project installed elsewhere, below somebody else's repository or under none, has no state.
    """
    top = _git(project, "rev-parse", "--show-toplevel")
    commit = _git(project, "rev-parse", "--verify", "HEAD")
    if top is None or commit is None or Path(top) != project:
        return {"commit": None, "dirty": None}
    changes = _git(project, "status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(project: Path, *arguments: str) -> str | None:
    """What git prints, None if it fails or is not there; takes none of git's locks."""
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
