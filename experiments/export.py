"""`fl export`: a version as files that others can use, each compared with the model on real test examples."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

    from fl.packaging.export import Exported
    from fl.parameters import Array, Parameters
    from fl.registry import Registry, Version
    from fl.signature import Signature

# What names a version, and says where it came from; a cohort, folders and settings stay at home.
PUBLIC = ("name", "run_id", "round", "model_sha256", "created", "metrics", "dataset", "model")


@dataclass(frozen=True)
class Opened:
    """A version, its module as built and not yet filled, its parameters, and ``examples`` (n, ...) it was tested on."""

    store: Registry
    version: Version
    signature: Signature
    module: nn.Module
    parameters: Parameters
    examples: Array


def opened(name: str, registry: Path) -> Opened:
    """The version called ``name`` with all that an export needs. Raises BadInput if any of it is not there."""
    from fl.registry import Registry

    store = Registry.existing(registry)
    version = store.version(name)
    examples = store.examples(version.run_id)
    if examples is None:
        allowed = "a version whose run left test examples in the registry, to compare the files with the model"
        raise BadInput(key="version", got=version.name, allowed=allowed)
    module, signature = built(version)
    return Opened(store, version, signature, module, store.parameters(version), examples[0])


def built(version: Version) -> tuple[nn.Module, Signature]:
    """The module of a version as it was built, not yet filled, and its signature."""
    from fl.models.build import build_model
    from fl.signature import Signature

    manifest = version.manifest
    signature = Signature.from_dict(manifest["signature"])
    module = build_model(
        target=manifest["model"]["target"],
        arguments=manifest["model"]["arguments"],
        signature=signature,
        seed=int(manifest["seed"]),
    )
    return module, signature


def export(name: str, *, formats: Sequence[str], output: Path, registry: Path, measure: bool = False) -> list[Exported]:
    """Write the version called ``name`` into ``output`` in each of ``formats``; a file an entry, in that order.

    The parity is measured on the test examples that the version's run left in the registry; ``measure``: and how long
    each reader takes. Raises BadInput before anything is written if the version, a format or the folder cannot be had.
    """
    from fl.packaging.export import export as write

    found = opened(name, registry)
    manifest = found.version.manifest
    return write(
        found.module,
        signature=found.signature,
        parameters=found.parameters,
        examples=found.examples,
        formats=listed(formats),
        output=output,
        name=re.sub(r"[^A-Za-z0-9._-]", "-", found.version.name),
        manifest={"hash": found.version.hash} | {key: manifest[key] for key in PUBLIC if key in manifest},
        measure=measure,
    )


def listed(formats: Sequence[str]) -> list[str]:
    """Names of formats as typed, without what is blank."""
    return [text.strip() for text in formats if text.strip()]


def warn(formats: Iterable[str]) -> None:
    """Say on standard error what whoever asked for these formats should know."""
    from fl.packaging.export import FORMATS

    for warning in (FORMATS[name].warning for name in formats if name in FORMATS):
        if warning:
            print(f"warning: {warning}", file=sys.stderr)


def show(files: Sequence[Exported], *, as_json: bool) -> None:
    """Print what was written: a table, or a JSON list with an object a file."""
    warn(file.format for file in files)
    if as_json:
        print(json.dumps([_plain(file) for file in files], indent=2))
        return
    from experiments.printing import print_table

    columns = ["format", "file", "bytes", "largest difference", "allowed", "test examples"]
    rows = [
        [f.format, f.path, f"{f.bytes:,}", f"{f.largest_difference:.3g}", f"{f.tolerance:.3g}", f.examples]
        for f in files
    ]
    if files[0].load_seconds is not None:
        columns += ["to load", "a row"]
        for row, f in zip(rows, files, strict=True):
            row += [f"{f.load_seconds:.2g} s", f"{1000 * (f.row_seconds or 0):.2g} ms"]
    print_table(columns, rows)


def _plain(file: Exported) -> dict[str, Any]:
    return asdict(file) | {"path": str(file.path.absolute())}
