"""`fl export`: a version as files that others can use, each compared with the model on real test examples."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput

if TYPE_CHECKING:
    from fl.packaging.export import Exported

# What names a version, and says where it came from; a cohort, folders and settings stay at home.
PUBLIC = ("name", "run_id", "round", "model_sha256", "created", "metrics", "dataset", "model")


def export(name: str, *, formats: Sequence[str], output: Path, registry: Path) -> list[Exported]:
    """Write the version called ``name`` into ``output`` in each of ``formats``; a file an entry, in that order.

    The parity is measured on the test examples that the version's run left in the registry. Raises BadInput before
    anything is written if the version, a format or the folder cannot be had.
    """
    from fl.models.build import build_model
    from fl.packaging.export import export as write
    from fl.registry import Registry
    from fl.signature import Signature

    store = Registry.existing(registry)
    version = store.version(name)
    examples = store.examples(version.run_id)
    if examples is None:
        allowed = "a version whose run left test examples in the registry, to compare the files with the model"
        raise BadInput(key="version", got=version.name, allowed=allowed)
    manifest = version.manifest
    signature = Signature.from_dict(manifest["signature"])
    module = build_model(
        target=manifest["model"]["target"],
        arguments=manifest["model"]["arguments"],
        signature=signature,
        seed=int(manifest["seed"]),
    )
    return write(
        module,
        signature=signature,
        parameters=store.parameters(version),
        examples=examples[0],
        formats=[text.strip() for text in formats if text.strip()],
        output=output,
        name=re.sub(r"[^A-Za-z0-9._-]", "-", version.name),
        manifest={"hash": version.hash} | {key: manifest[key] for key in PUBLIC if key in manifest},
    )


def show(files: Sequence[Exported], *, as_json: bool) -> None:
    """Print what was written: a table, or a JSON list with an object a file."""
    if as_json:
        print(json.dumps([_plain(file) for file in files], indent=2))
        return
    from experiments.printing import print_table

    columns = ("format", "file", "bytes", "largest difference", "allowed", "test examples")
    rows = [
        (f.format, f.path, f"{f.bytes:,}", f"{f.largest_difference:.3g}", f"{f.tolerance:.3g}", f.examples)
        for f in files
    ]
    print_table(columns, rows)


def _plain(file: Exported) -> dict[str, Any]:
    return asdict(file) | {"path": str(file.path.absolute())}
