"""Validate: every client held against rules; who breaks one is quarantined, and the rest is trained on.

    rules.yaml         inferred from the first data that come, then a person's to edit; later data are held against them
    quarantine.json    the clients that are left out, with what they broke

What is wrong with the data as such, a column that is missing, ends the pipeline: nobody is left to train with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.lifecycle.inputs import quarantine_source, sha256_of
from experiments.lifecycle.profile import NO_TABLE
from experiments.lifecycle.stage import Quality, Result, Settings, Stage, Work
from fl.decisions import Action, Decision
from fl.errors import BadInput, CorruptFile

if TYPE_CHECKING:
    from experiments.private_columns import Columns
    from fl.data.validate import Violation

RULES, QUARANTINE = "rules.yaml", "quarantine.json"
QUARANTINED = f"validate/{QUARANTINE}"
PLACES = ("path", "query", "url", "quarantine")
SHOWN = 3
"""Clients whose violations the stage's one line names."""


def run(work: Work) -> Result:
    """Ask the clients what the rules want to know of them."""
    from dataclasses import asdict

    from experiments.prepare import dealing_of
    from experiments.private_columns import dealt, validate_columns
    from fl.data.intake import read_intake
    from fl.data.quarantine import reasons, write_quarantine

    dataset = read_intake(work.before["ingest"].folder)
    dealing = dealing_of(work.settings, dataset)
    given = work.settings["dataset"].get("quarantine")
    before = reasons(Path(given), dealing=dealing) if given else {}
    if not dataset.is_table:
        gone = write_quarantine(work.folder / QUARANTINE, [], dealing=dealing, besides=before)
        return Result({"table": False, "quarantined": gone}, NO_TABLE)
    with dealt(work.settings, dataset) as columns:
        rules, origin = _rules(work, columns)
        violations = validate_columns(columns, rules)
        names = dict(zip(columns.clients, columns.client_names, strict=False))
    gone = write_quarantine(work.folder / QUARANTINE, violations, dealing=dealing, besides=before)
    evidence = {
        "table": True,
        "rules": rules,
        "rules_are": origin,
        "inferred_for": _meant_for(work.settings),
        "violations": [
            asdict(v) | {"client_name": None if v.client is None else names.get(v.client)} for v in violations
        ],
        "quarantined": gone,
    }
    decision = _decide(violations, names, num_clients=len(columns.clients), quarantined_before=len(before))
    return Result(
        evidence, decision.reason, {"whoever broke a rule is quarantined": _all_in(violations, gone)}, decision
    )


def without_quarantined(work: Work) -> dict[str, Any]:
    """The settings of a stage after this one, with the clients that it leaves out."""
    file = work.before["validate"].folder / QUARANTINE
    return {**work.settings, "dataset": {**work.settings["dataset"], "quarantine": str(file)}}


def _rules(work: Work, columns: Columns) -> tuple[dict[str, Any], str]:
    """The rules and where they come from: a file that was given, the stage's own file, or these data."""
    from experiments.validation import read_rules, rules_text
    from fl.data.rules import infer_rules
    from fl.files import write_bytes

    if work.settings["rules"] is not None:
        return read_rules(Path(work.settings["rules"]), key="rules"), "given"
    own = work.root / "validate" / RULES
    if own.is_file() and _still_meant(own, work.settings):
        rules, origin, text = read_rules(own, key="rules"), "kept", own.read_bytes()
    else:
        rules, origin = infer_rules(columns.ask, work.before["profile"].evidence), "inferred"
        if columns.centre.facts["overlapping"]:
            rules["rows"].pop("shared_share")  # clients that share rows by the partition are not copies
        text = rules_text(rules)
    write_bytes(work.folder / RULES, text, site="report")
    return rules, origin


def _still_meant(own: Path, settings: Settings) -> bool:
    """Whether the stage's own rules are for these data: edited by a person, or inferred with the same settings."""
    from experiments.lifecycle.pipeline import EVIDENCE, RECORD
    from fl.files import read_json, sha256_file

    try:
        edited = sha256_file(own) != read_json(own.parent / RECORD)["files"][RULES]
        return edited or bool(read_json(own.parent / EVIDENCE)["inferred_for"] == _meant_for(settings))
    except (CorruptFile, OSError, KeyError):
        return True


def _meant_for(settings: Settings) -> str:
    """A hash of the settings but for those that say where the rows are: the next batch is held against the same."""
    how = {key: value for key, value in settings["dataset"].items() if key not in PLACES}
    return sha256_of({**settings, "dataset": how, "rules": None})


def _decide(
    violations: Sequence[Violation], names: Mapping[int, str], *, num_clients: int, quarantined_before: int
) -> Decision:
    clients: dict[int, list[Violation]] = {}
    for v in violations:
        if v.client is not None:
            clients.setdefault(v.client, []).append(v)
    told = [
        f"{' '.join([str(client), *([names[client]] if client in names else [])])} ({_in_words(broken)})"
        for client, broken in clients.items()
    ]
    if common := [v for v in violations if v.client is None]:
        return Decision(Action.STOP, f"no-go: the data as such break rules ({_in_words(common)})")
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    who = f"{'; '.join(told[:SHOWN])}{more}"
    if len(clients) == num_clients:
        return Decision(Action.STOP, f"no-go: every client breaks a rule: {who}")
    gone = f"{len(clients)} of {num_clients} clients quarantined: {who}" if clients else ""
    kept = f"{num_clients - len(clients)} clients keep all rules"
    earlier = f"{quarantined_before} left out before" if quarantined_before else ""
    return Decision(Action.GO_ON, "; ".join(part for part in (kept, gone, earlier) if part))


def _in_words(violations: Sequence[Violation]) -> str:
    columns: dict[str, list[str]] = {}
    for v in violations:
        columns.setdefault(v.column or "rows", []).append(v.rule)
    return ", ".join(f"{column}: {', '.join(dict.fromkeys(rules))}" for column, rules in columns.items())


def _all_in(violations: Sequence[Violation], gone: Sequence[int]) -> bool:
    return {v.client for v in violations if v.client is not None} <= set(gone)


def sources(settings: Settings) -> dict[str, str | None]:
    """The clients that are left out before, and the rules, where a file of them is given."""
    from fl.files import sha256_file

    found = quarantine_source(settings)
    if settings["rules"] is not None:
        file = Path(settings["rules"])
        if not file.is_file():
            allowed = "a file of rules, as fl data validate --infer writes one, or null: they are inferred"
            raise BadInput(key="rules", got=f"{file}, which is no file", allowed=allowed)
        found["rules"] = sha256_file(file)
    return found


STAGE = Stage(
    name="validate",
    after=("ingest", "profile"),
    reads=("rules", "dataset", "-dataset.recipe", "partition", "num_clients", "seed", "server.seeding"),
    code=(
        *(
            "experiments.lifecycle.validate",
            "experiments.asking",
            "experiments.private_columns",
            "experiments.validation",
        ),
        *("clients.query", "server.query", "fl.data"),
    ),
    run=run,
    quality=Quality(
        requirement="what is trained on keeps the rules that were set for it, client by client",
        risk="a broken sensor, a changed unit, a copied client or a column that gives the label away is learned from",
        check="all violations are told at once; whoever is at fault is in the quarantine that split leaves out",
    ),
    sources=sources,
    edited=(RULES,),
)
