"""Package: the accepted version as a bundle, which needs neither the registry nor the run; the pipeline's product."""

from __future__ import annotations

from pathlib import Path

from experiments.lifecycle.stage import Quality, Result, Settings, Stage, Work

BUNDLES = "bundles"
"""The folder, below the stage's own, that holds the bundle under its name."""


def run(work: Work) -> Result:
    """Write the version that train made as a bundle, with the card of what the stages before found."""
    from experiments.judging_files import FileJudge
    from experiments.package import acceptance, write_version
    from fl.evaluation.acceptance import criteria
    from fl.registry import Registry

    given = work.settings["package"]
    evidence = {name: done.evidence for name, done in work.before.items()}
    name = str(evidence["train"]["version"])
    store = Registry(work.settings["registry_dir"])
    bundle = write_version(
        name,
        formats=given["formats"],
        output=work.folder / BUNDLES,
        registry=store.folder,
        key=Path(given["key"]) if given["key"] else None,
        evidence=evidence,
        accepted=acceptance(name, against=(), held=evidence["accept"], override=None),
        judge=FileJudge(store, store.version(name), criteria(evidence["accept"]["criteria"]), evidence),
    )
    formats = bundle.manifest["formats"]
    return Result(
        {
            "bundle": bundle.id,
            "path": f"{STAGE.name}/{BUNDLES}/{bundle.id}",
            "formats": formats,
            "bytes": sum(one["size"] for one in bundle.manifest["files"].values()),
            "signed_by": bundle.signed_by,
            "model_sha256": bundle.manifest["version"]["model_sha256"],
        },
        f"bundle {bundle.id[:12]} with {', '.join(formats)}, {'signed' if bundle.signed_by else 'not signed'}",
        {
            "every format agrees with the model": all(
                one["largest_difference"] <= one["tolerance"] for one in formats.values()
            ),
            "what was packaged is what was trained": bundle.manifest["version"]["model_sha256"]
            == evidence["train"]["model_sha256"],
        },
    )


def signer(settings: Settings) -> dict[str, str | None]:
    """Who signs, by the public half of the key. Raises BadInput where there is no such key."""
    from fl.keys import public_half, read_private_key

    key = settings["package"]["key"]
    return {"package.key": public_half(read_private_key(Path(key)))} if key else {}


STAGE = Stage(
    name="package",
    after=("understand", "ingest", "profile", "validate", "wrangle", "split", "train", "evaluate", "accept"),
    reads=("registry_dir", "package"),
    code=(
        *("experiments.lifecycle.package", "experiments.package", "experiments.export", "fl.packaging", "fl.bundle"),
        *("experiments.judging_files", "fl.evaluation.card", "fl.evaluation.acceptance"),
    ),
    run=run,
    quality=Quality(
        requirement="what goes out answers like the model that was accepted, and nobody can alter it unseen",
        risk="a format that computes something else; a file that was changed, or that runs code when it is read",
        check="each format is scored on real examples by its own reader; every file is hashed, and verified before use",
    ),
    sources=signer,
)
