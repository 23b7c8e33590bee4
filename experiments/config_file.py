"""config.yaml of a run, or app.yaml: its settings as they were composed, and the hash that tells if they still are.

The hash stands in the first line, as a comment, so that no truncation can take it and leave settings. Who changes the
settings by hand takes that line away, and says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fl.errors import CorruptFile
from fl.files import write_bytes

CONFIG, APP_CONFIG = "config.yaml", "app.yaml"
MARK = b"# sha256 of the lines below: "


def write_config(run_dir: Path, config: Mapping[str, Any], *, name: str = CONFIG) -> None:
    """Write the settings of a run, before anything else starts."""
    text = yaml.safe_dump(dict(config), sort_keys=False).encode()
    write_bytes(run_dir / name, MARK + hashlib.sha256(text).hexdigest().encode() + b"\n" + text, site="config")


def read_config(run_dir: Path, *, name: str = CONFIG) -> dict[str, Any]:
    """The settings of a run. Raises CorruptFile where they are not those that were written, nor without their hash."""
    path = run_dir / name
    text = path.read_bytes()
    first, _, below = text.partition(b"\n")
    if first.startswith(MARK):
        text = below
        if first.removeprefix(MARK) != hashlib.sha256(text).hexdigest().encode():
            raise CorruptFile(path=str(path), why="its lines are not those that were written; the first has their hash")
    elif b"sha256 of" in first or b"lines below" in first:
        raise CorruptFile(path=str(path), why="its first line, which has the hash of the others, is damaged")
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CorruptFile(path=str(path), why=f"not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise CorruptFile(path=str(path), why="not the settings of a run")
    return config
