"""Databases as they are told of: where they lie, and what they say against a query. Nothing is connected to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fl.errors import BadInput

_PASSWORD = re.compile(r"^[\w+]+://[^/@:]*:(?P<password>[^@]*)@")


def shown(url: str, *, key: str = "dataset.url") -> str:
    """A URL as it may be told and kept. Raises BadInput, by the name of ``key``, where a password stands in it."""
    found = _PASSWORD.match(url)
    if found and not found["password"].startswith("$"):
        got = url.replace(f":{found['password']}@", ":***@", 1)
        raise BadInput(key=key, got=got, allowed="$NAME of the environment in place of the password")
    return url


def database_file(url: str) -> Path | None:
    """The file that a SQLite URL names, None for any other URL."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(?P<path>[^?]+)(?:\?.*)?", os.path.expandvars(url))
    return Path(found["path"]) if found else None


def complaint(error: Exception) -> str:
    """What a database says, by SQLAlchemy's error: its first line alone, since the others repeat the query."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
