"""`fl data validate`: rules from a file or into one, held against the private partitions of settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fl.errors import BadInput


def infer_rules(settings: Mapping[str, Any], *, rules: Path) -> Path:
    """Write rules that the data of ``settings`` keep into ``rules``, for a person to edit. Never over a file."""
    from experiments.private_columns import dealt, profile_columns
    from fl.data import rules as inferring
    from fl.files import writable_folder, write_bytes

    if rules.exists():
        raise BadInput(key="--rules", got=f"{rules}, which exists", allowed="a new file, with --infer")
    with dealt(settings) as columns:
        described = profile_columns(columns)
        found = inferring.infer_rules(columns.ask, described)
    path = rules.absolute()
    writable_folder(path.parent, key="--rules")
    write_bytes(path, rules_text(found), site="report")
    return path


def rules_text(rules: Mapping[str, Any]) -> bytes:
    """Rules as the YAML that a person edits."""
    import yaml

    text = yaml.safe_dump(dict(rules), sort_keys=False, default_flow_style=None, width=120)
    return str(text).encode()


def validate_data(
    settings: Mapping[str, Any], *, rules: Path, quarantine: Path | None = None, registry: Path | None = None
) -> dict[str, Any]:
    """What of the data of ``settings`` breaks the rules in a file, as plain values; clients at fault into another.

    ``registry``: where rules and violations are kept besides, as evidence of the data set.
    """
    from experiments import recorded_data
    from experiments.prepare import load_data
    from experiments.private_columns import dealt, validate_columns
    from fl.data.quarantine import reasons, write_quarantine
    from fl.files import writable_folder

    checked = read_rules(rules)
    if registry is not None:
        writable_folder(registry.absolute(), key="--registry")
    dataset = load_data(settings)
    with dealt(settings, dataset) as columns:
        violations = validate_columns(columns, checked)
    named = dict(zip(columns.clients, columns.client_names, strict=False))
    at_fault = sorted({v.client for v in violations if v.client is not None})
    if quarantine is not None:
        path = quarantine.absolute()
        writable_folder(path.parent, key="--quarantine")
        given = settings["dataset"].get("quarantine")
        before = reasons(Path(given), dealing=columns.dealing) if given else {}
        write_quarantine(path, violations, dealing=columns.dealing, besides=before)
    told = [asdict(v) | {"client_name": None if v.client is None else named.get(v.client)} for v in violations]
    if registry is not None:
        evidence = {"rules": checked, "violations": told, "quarantined": at_fault}
        data = recorded_data.about(settings, dataset)
        recorded_data.record(registry, data, {recorded_data.RULES: evidence})
    return {
        "name": settings["dataset"]["name"],
        "clients": columns.centre.num_clients,
        "violations": told,
        "at_fault": at_fault,
        "quarantine": None if quarantine is None else str(quarantine.absolute()),
    }


def read_rules(path: Path, *, key: str = "--rules") -> dict[str, Any]:
    """The rules in a YAML file. Raises BadInput that names the file and what is wrong in it."""
    import yaml

    from fl.data.rules import check_rules

    if not path.is_file():
        allowed = "a file of rules; fl data validate --infer writes one"
        raise BadInput(key=key, got=f"{path}, which is no file", allowed=allowed)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = str(error).splitlines()[0]
        raise BadInput(key=key, got=f"{path}, which cannot be read ({why})", allowed="YAML") from error
    return check_rules(found, file=str(path))


def show_violations(found: Mapping[str, Any], *, as_json: bool) -> None:
    """On standard output: a row a violation, or JSON."""
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from experiments.printing import print_table

    if not found["violations"]:
        print(f"{found['clients']} clients keep all rules")
        return
    print_table(*violation_rows(found["violations"]))


def violation_rows(violations: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The heads of a table of violations, and its rows."""
    rows = [
        (
            "all" if v["client"] is None else f"{v['client']} {v['client_name'] or ''}".strip(),
            v["column"] or "(rows)",
            v["rule"],
            v["found"],
            v["allowed"],
        )
        for v in violations
    ]
    return ("client", "column", "rule", "found", "allowed"), rows
