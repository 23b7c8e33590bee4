"""`fl accept`: success criteria applied to the evidence of a version: accepted, or refused with every reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.evaluation import EVALUATE, evaluate, rival
from fl.errors import BadInput

if TYPE_CHECKING:
    from fl.evaluation.acceptance import Criteria
    from fl.registry import Registry, Version

ACCEPT = "accept"
NO_WORSE = "no_worse_than_champion"


def run_accept(name: str, success: Sequence[str], *, business: str | None, registry: Path, as_json: bool) -> int:
    """Accept or refuse the version called ``name``, and print the verdict; returns the exit status."""
    from fl.errors import NotAccepted
    from fl.registry import Registry

    store = Registry.existing(registry)
    version = store.version(name)
    evidence = accept_version(store, version, success=success, business=business)
    if as_json:
        print(json.dumps({"version": version.name, **evidence}, indent=2))
    else:
        show(version.name, evidence)
    return 0 if evidence["accepted"] else NotAccepted.exit_status


def accept_version(
    store: Registry, version: Version, *, success: Sequence[str] = (), business: str | None = None
) -> dict[str, Any]:
    """Hold a version against its criteria, and keep the verdict as evidence; returns that.

    success    METRIC=THRESHOLD and CONSTRAINT=LIMIT, as typed; they are all there is, where there are any
    business   a choice of conf/business, or a YAML file like one

    Left out, what the version was trained for counts. A version without evidence ``evaluate``, or compared with another
    champion than now, is evaluated first. BadInput where nothing is asked for.
    """
    from fl.evaluation.acceptance import accept, known_criteria

    wanted = _given(success, business) or known_criteria(store.run_evidence(version))
    if wanted is None or not wanted.any:
        allowed = "METRIC=THRESHOLD, --business, or a version of `fl lifecycle` with success criteria"
        raise BadInput(key="SUCCESS", got="no criterion", allowed=allowed)
    found = store.evidence(version).get(EVALUATE)
    if found is None or (wanted.no_worse_than_champion and _is_stale(found, store, version)):
        found = evaluate(store, version)
        store.attach(version, EVALUATE, found)
    verdict = accept(found, wanted)
    evidence = {**verdict.to_dict(), "criteria": wanted.to_dict(), "found": verdict.decision.reason}
    store.attach(version, ACCEPT, evidence)
    return evidence


def show(version: str, evidence: dict[str, Any]) -> None:
    """Print the verdict: a line a criterion."""
    from experiments.printing import print_table

    print(f"{version} is {'accepted' if evidence['accepted'] else 'refused'}")
    rows = [("not fulfilled", reason) for reason in evidence["reasons"]]
    print_table(("", ""), [*rows, *(("fulfilled", words) for words in evidence["held"])])


def _is_stale(found: dict[str, Any], store: Registry, version: Version) -> bool:
    other = rival(store, version)
    return bool(found["rival"] != (other.name if other else None))


def _given(success: Sequence[str], business: str | None) -> Criteria | None:
    from fl.evaluation.acceptance import criteria

    if success and business:
        raise BadInput(key="--business", got=business, allowed="criteria on the command line, or a file, not both")
    if success:
        return criteria(_typed(success))
    if business:
        return criteria(_composed(business))
    return None


def _typed(success: Sequence[str]) -> dict[str, Any]:
    from fl.evaluation.acceptance import CONSTRAINTS
    from fl.evaluation.goals import METRICS

    section: dict[str, Any] = {"success": {}, "constraints": {}}
    for text in success:
        name, equals, value = text.partition("=")
        if name == NO_WORSE and value in ("", "true"):
            section[NO_WORSE] = True
            continue
        if not equals or name not in (*METRICS, *CONSTRAINTS):
            allowed = f"NAME=NUMBER with one of {', '.join((*METRICS, *CONSTRAINTS))}, or {NO_WORSE}"
            raise BadInput(key="SUCCESS", got=text, allowed=allowed)
        try:
            section["constraints" if name in CONSTRAINTS else "success"][name] = float(value)
        except ValueError as error:
            raise BadInput(key=name, got=value, allowed="a number") from error
    return section


def _composed(business: str) -> dict[str, Any]:
    """The section ``business`` by a choice of conf/business, or from a YAML file that has its keys."""
    from experiments.choices import flat
    from experiments.compose import LIFECYCLE, compose
    from experiments.rules import check_values

    chosen = [f"business={business}"] if not Path(business).is_file() else _overrides(Path(business))
    section = compose(chosen, name=LIFECYCLE)["business"]
    check_values(flat({"business": section}))
    return dict(section)


def _overrides(path: Path) -> list[str]:
    """What a file asks for, as it would be typed."""
    import yaml

    from experiments.choices import flat

    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(key="--business", got=str(path), allowed=f"a YAML file ({error})") from error
    if not isinstance(read, dict):
        raise BadInput(key="--business", got=str(path), allowed="a YAML file with success and constraints")
    section = read.get("business", read)
    asked = {key: section[key] for key in ("success", "constraints", NO_WORSE) if section.get(key) is not None}
    return [f"business.{key}={'null' if value is None else value}" for key, value in flat(asked).items()]
