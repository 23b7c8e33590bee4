"""Acceptance again, of the very file that goes out: one that answers a little differently than its version by design.

An 8-bit file is asked by its own reader (onnxruntime) about the same held-back examples that the version was judged by,
and held against the same success criteria: metrics, no worse than the champion, the file's own size and speed, and on
every client where a fairness floor is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.evaluation import EVALUATE
from fl.errors import BadInput, NotAccepted

if TYPE_CHECKING:
    from fl.evaluation.acceptance import Criteria
    from fl.packaging.export import Exported
    from fl.packaging.predict import Predict
    from fl.registry import Registry, Version


@dataclass(frozen=True)
class FileJudge:
    """Judges files of a version (``fl.packaging.package.Judge``).

    wanted     the criteria, or None where nothing is asked for: then files are measured alone
    evidence   of the version: what no file changes (what privacy was spent) is taken from there
    override   why files go out that do not fulfil them
    vain       whether nothing stands against the version itself, so that an override has to be for a file
    """

    store: Registry
    version: Version
    wanted: Criteria | None
    evidence: Mapping[str, Mapping[str, Any]]
    override: str | None = None
    vain: bool = False

    def __call__(self, files: Sequence[tuple[Exported, Predict]]) -> dict[str, dict[str, Any]]:
        """By format: metrics, and whether it was accepted. Raises NotAccepted with every reason against any of them."""
        from fl.evaluation.acceptance import accept

        told: dict[str, dict[str, Any]] = {}
        reasons: list[str] = []
        for file, predict in files:
            found = self.measured(file, predict)
            told[file.format] = {"metrics": {name: one["value"] for name, one in found["metrics"].items()}}
            if self.wanted is not None and self.wanted.any:
                verdict = accept(found, self.wanted)
                told[file.format]["accepted"] = not verdict.reasons
                reasons += [f"as {file.format}, {reason}" for reason in verdict.reasons]
        if reasons and self.override is None:
            raise NotAccepted(version=self.version.name, reasons=reasons)
        if self.vain and not reasons:
            got = f"{self.override!r}, where nothing stands against {self.version.name} or a file of it"
            raise BadInput(key="--override", got=got, allowed="why something goes out that was not accepted")
        return told

    def measured(self, file: Exported, predict: Predict) -> dict[str, Any]:
        """What acceptance asks of the evidence ``evaluate``, found out about a file."""
        from experiments.evaluation import beside_champion, held_back, on_clients
        from fl.evaluation.answers import answers, figures
        from fl.evaluation.held_back import CONFIDENCE, RESAMPLES, absent, between
        from fl.evaluation.intervals import intervals
        from fl.evaluation.resources import latency
        from fl.packaging.predict import Asked
        from fl.signature import Signature

        signature = Signature.from_dict(self.version.manifest["signature"])
        examples, seed = held_back(self.store, self.version), int(self.version.manifest["seed"] or 0)
        module = Asked(predict)
        mine = answers(module, examples.x, examples.y, signature)
        wanted = self.wanted
        clients = absent("no fairness floor was asked for")
        if wanted is not None and "fairness_floor" in wanted.limits:
            clients = on_clients(
                self.store, self.version, seed=seed, resamples=RESAMPLES, confidence=CONFIDENCE, instead=module
            )
        against = wanted is not None and wanted.no_worse_than_champion
        return {
            "metrics": {name: between(one) for name, one in intervals(figures(mine), seed=seed).items()},
            "champion": beside_champion(self.store, self.version, mine, examples) if against else {},
            "clients": clients,
            "privacy": self.evidence.get(EVALUATE, {}).get("privacy"),
            "resources": {"bytes": file.bytes},
            "measured": latency(module, signature),
        }


def lossy(formats: Sequence[str]) -> bool:
    """Whether any of these formats is one whose files are judged."""
    from fl.packaging.export import FORMATS

    return any(FORMATS[name].lossy for name in formats if name in FORMATS)
