"""`fl package`: an accepted version as a bundle, and what was packaged, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput, NotAccepted

if TYPE_CHECKING:
    from experiments.judging_files import FileJudge
    from fl.bundle import Bundle
    from fl.registry import Version

FACTS = ("model_sha256", "round", "seed", "metrics", "dataset", "model", "compression")
"""What of a version's manifest goes into a bundle, where it has it: the same for the same model, whoever trained it,
when and where.
"""


def package(
    name: str, *, formats: Sequence[str], output: Path, registry: Path, key: Path | None, override: str | None
) -> Bundle:
    """Write the version called ``name`` as a bundle below ``output``.

    Raises BadInput before anything is written if the version, a format, the key or the folder cannot be had, and
    NotAccepted where success criteria are set and the version was not accepted, or a file of it that answers otherwise
    (8 bits) does not fulfil them itself, unless ``override`` says why it goes out all the same.
    """
    from experiments.export import listed
    from experiments.judging_files import FileJudge, lossy
    from fl.evaluation.acceptance import known_criteria
    from fl.registry import Registry

    store = Registry.existing(registry)
    version = store.version(name)
    evidence, against = store.evidence(version), store.objections(version)
    wanted = known_criteria(store.run_evidence(version))
    for_a_file = bool(override) and not against and wanted is not None and wanted.any and lossy(listed(formats))
    accepted = acceptance(
        version.name, against=against, held=evidence.get("accept"), override=override, for_a_file=for_a_file
    )
    return write_version(
        version.name,
        formats=formats,
        output=output,
        registry=registry,
        key=key,
        evidence=evidence,
        accepted=accepted,
        judge=FileJudge(store, version, wanted, evidence, override=override, vain=for_a_file),
    )


def write_version(
    name: str,
    *,
    formats: Sequence[str],
    output: Path,
    registry: Path,
    key: Path | None,
    evidence: Mapping[str, Mapping[str, Any]],
    accepted: Mapping[str, Any] | None,
    judge: FileJudge,
) -> Bundle:
    """The bundle of a version that may go out. ``evidence`` by its stage, ``accepted`` of ``acceptance``."""
    from experiments.export import listed, opened
    from fl.evaluation.card import card, markdown
    from fl.keys import read_private_key
    from fl.packaging.package import package as write

    private = read_private_key(key) if key else None
    found = opened(name, registry)
    version = facts(found.version)
    return write(
        found.module,
        signature=found.signature,
        parameters=found.parameters,
        examples=found.examples,
        formats=listed(formats),
        output=output,
        version=version,
        card=markdown(card(version, found.signature, _lasting(evidence, accepted))),
        also={"accepted": accepted},
        key=private,
        judge=judge,
    )


def _lasting(evidence: Mapping[str, Mapping[str, Any]], accepted: Mapping[str, Any] | None) -> dict[str, Any]:
    """The evidence without what comes out differently each time, so that the same model has the same bundle."""
    kept = {name: {key: v for key, v in one.items() if key != "measured"} for name, one in evidence.items()}
    return kept | ({"accept": accepted} if accepted else {})


def facts(version: Version) -> dict[str, Any]:
    """What a bundle says of the version that it is."""
    return {name: version.manifest[name] for name in FACTS if name in version.manifest}


def acceptance(
    version: str,
    *,
    against: Sequence[str],
    held: Mapping[str, Any] | None,
    override: str | None,
    for_a_file: bool = False,
) -> dict[str, Any] | None:
    """How a version stands to its success criteria, as a bundle says it; None where none are set.

    ``against``: what the gate of the registry says (``Registry.objections``). ``held``: the evidence ``accept``.
    ``for_a_file``: the override may be for a file that is still to be judged. Raises NotAccepted, or BadInput for an
    override of nothing.
    """
    if override is not None and (not (against or for_a_file) or not override.strip()):
        got = repr(override) if against else f"{override!r}, where nothing stands against {version}"
        raise BadInput(key="--override", got=got, allowed="why a version goes out that was not accepted")
    if against and override is None:
        raise NotAccepted(version=version, reasons=against)
    if held is None and not against:
        return None
    reason = override or ((held or {}).get("override") or {}).get("reason")
    return {"accepted": bool(held and held["accepted"]), "override": {"reason": reason} if reason else None}


def show(bundle: Bundle, *, as_json: bool) -> None:
    """Print what is in a bundle: tables and its folder in the last line, or one JSON document."""
    if as_json:
        print(json.dumps({"id": bundle.id, "folder": str(bundle.folder.absolute()), **bundle.manifest}, indent=2))
        return
    from experiments.printing import print_table

    manifest = bundle.manifest
    version = manifest["version"]
    signature = bundle.signature
    shape = " x ".join(str(side) for side in signature.input_shape)
    accepted = manifest.get("accepted")
    rows = [
        ("bundle", bundle.id),
        ("model", version["model"]["target"]),
        ("parameters", version["model_sha256"]),
        ("data", f"{version['dataset'].get('name')} {str(version['dataset'].get('fingerprint'))[:12]}"),
        ("takes", f"{shape} of {signature.input_dtype}"),
        ("gives", f"{signature.num_outputs} for a {signature.task}: {', '.join(bundle.labels) or 'no names'}"),
        *((f"metrics.{name}", f"{value:.6g}") for name, value in version["metrics"].items() if value is not None),
        ("accepted", "not asked for" if accepted is None else _accepted(accepted)),
        ("signed by", bundle.signed_by or "nobody"),
    ]
    print_table(("", ""), rows)
    columns = ("format", "file", "bytes", "largest difference", "allowed", "test examples")
    sizes = manifest["files"]
    print_table(
        columns,
        [
            (
                *(name, one["path"], f"{sizes[one['path']]['size']:,}", f"{one['largest_difference']:.3g}"),
                *(f"{one['tolerance']:.3g}", one["examples"]),
            )
            for name, one in manifest["formats"].items()
        ],
    )
    print(bundle.folder)


def _accepted(found: Mapping[str, Any]) -> str:
    override = found["override"]
    return ("yes" if found["accepted"] else "no") + (f", but: {override['reason']}" if override else "")
