"""`fl versions`: look at the versions of global models, compare them, and say which one is champion."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # NumPy is imported by the commands themselves, so that `fl --help` stays quick
    from rich.console import RenderableType

    from fl.registry import Difference, Registry, Version

app = typer.Typer(
    no_args_is_help=True,
    help="List, compare, promote and verify the versions of global models.",
    epilog=(
        "A VERSION is RUN:ROUND, RUN:best, RUN:latest, RUN (its latest), champion, challenger, or six digits or more "
        "of a hash. RUN is a run's id or its folder."
    ),
)

Folder = Annotated[Path, typer.Option("--registry", metavar="DIR", help="The folder of the registry.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Name = Annotated[str, typer.Argument(metavar="VERSION", help="RUN:ROUND, RUN:best, champion, a hash ...")]
Alias = Annotated[str, typer.Option("--alias", help="champion or challenger.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the alias's history.")]
REGISTRY = Path("outputs/registry")


@app.command("list")
def list_command(
    registry: Folder = REGISTRY,
    run: Annotated[str | None, typer.Option("--run", help="Only this run: its id or its folder.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the newest so many.")] = None,
    as_json: Json = False,
) -> None:
    """List versions, the newest last."""
    store = _open(registry)
    versions = store.versions(store.version(run).run_id if run else None)[-limit if limit else None :]
    named = _aliases(store, versions)
    if as_json:
        _print_json([{**_facts(v), "aliases": named[v.hash]} for v in versions])
        return
    shown = _shown_metrics(versions)
    columns = ("version", "hash", "round", *shown, "aliases", "created")
    rows = [
        (v.name, v.hash[:12], v.round, *(v.metrics.get(m) for m in shown), ", ".join(named[v.hash]), _when(v))
        for v in versions
    ]
    _print(_table(columns, rows, right=("round", *shown)))


@app.command()
def show(version: Name, registry: Folder = REGISTRY, as_json: Json = False) -> None:
    """Show one version: where it came from, what it was made with, and how good it is."""
    from fl.errors import CorruptFile

    store = _open(registry)
    found = store.version(version)
    aliases = _aliases(store, [found])[found.hash]
    try:
        lineage, broken = store.lineage(found), None
    except CorruptFile as error:
        lineage, broken = [found], str(error)
    if as_json:
        ancestors = [{"name": v.name, "hash": v.hash} for v in lineage]
        facts = {**_facts(found), "aliases": aliases, "path": str(found.path), "manifest": found.manifest}
        facts["evidence"] = store.evidence(found)
        facts["objections"] = list(store.objections(found))
        _print_json({**facts, "lineage": ancestors, "lineage_problem": broken})
        return
    manifest = found.manifest
    rows: list[tuple[str, Any]] = [
        ("version", found.name),
        ("aliases", ", ".join(aliases) or "none"),
        ("hash", found.hash),
        ("parameters", f"{manifest['num_parameters']} numbers, {manifest['bytes']} bytes, hash {found.model_sha256}"),
        ("created", manifest["created"]),
        ("cohort", f"{len(manifest['cohort'])} clients"),
        *(
            (key, value)
            for name in ("metrics", "seeding", "compression", "dataset", "model", "code")
            for key, value in _dotted(manifest, name)
        ),
        ("seed", manifest["seed"]),
        ("accepted", _acceptance(store, found)),
        *((f"evidence.{name}", known.get("found", "")) for name, known in store.evidence(found).items()),
        ("lineage", _chain(lineage)),
        *([("lineage broken", broken)] if broken else []),
        ("manifest", found.path),
    ]
    _print(_table(("", ""), rows, header=False), _tree("config", manifest["config"]))


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="The version to start from.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The version to compare it with.")],
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Compare two versions: parameters, metrics, config, data, model and code."""
    from dataclasses import asdict

    found = _open(registry).diff(a, b)
    if as_json:
        _print_json(asdict(found))
        return
    _print(*_difference_tables(found))


@app.command()
def promote(
    version: Name,
    registry: Folder = REGISTRY,
    alias: Alias = "champion",
    reason: Reason = "",
    override: Annotated[
        str | None, typer.Option("--override", help="Why it is to be champion although it was not accepted; recorded.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a version the champion, or the challenger with --alias challenger.

    Where success criteria are set, only an accepted version becomes champion (exit status 4); see fl accept.
    """
    store = _open(registry)
    found = store.version(version)
    before = store.promote(found, alias, reason=reason or override or "", by=user(), override=override)
    _moved(alias, found, before, as_json)


@app.command()
def rollback(
    registry: Folder = REGISTRY, alias: Alias = "champion", reason: Reason = "", as_json: Json = False
) -> None:
    """Let an alias name again the version that it named before."""
    store = _open(registry)
    found = store.rollback(alias, reason=reason, by=user())
    _moved(alias, found, store.alias_moves(alias)[-1]["from"], as_json)


@app.command()
def verify(
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Only this one and its lineage.")] = None,
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Check every file against its hash, and every parent and alias; exit status 1 if anything is wrong."""
    from dataclasses import asdict

    from fl.errors import CorruptFile
    from fl.registry import Problem

    store = _open(registry)
    try:
        problems = store.verify(version)
    except CorruptFile as error:  # the one asked for could not even be found
        problems = [Problem.of(str(version), error)]
    checked = version or str(registry)
    if as_json:
        _print_json({"checked": checked, "problems": [asdict(p) for p in problems]})
    elif problems:
        rows = [(p.subject, p.path, p.what) for p in problems]
        _print(_table(("what is affected", "file", "problem"), rows))
    else:
        _print(f"{checked}: nothing is wrong")
    if problems:
        raise typer.Exit(1)


def _open(folder: Path) -> Registry:
    from fl.registry import Registry

    return Registry.existing(folder)


def user() -> str:
    """Who types; not every container has a name for its user."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _facts(version: Version) -> dict[str, Any]:
    manifest = version.manifest
    return {
        "name": version.name,
        "run_id": version.run_id,
        "round": version.round,
        "hash": version.hash,
        "model_sha256": version.model_sha256,
        "parent": manifest["parent"],
        "parent_name": manifest["parent_name"],
        "metrics": manifest["metrics"],
        "created": manifest["created"],
    }


def _aliases(store: Registry, versions: Sequence[Version]) -> dict[str, list[str]]:
    """The names beside its own that each version goes by, by hash: registry-wide ones, then best and latest."""
    named: dict[str, list[str]] = {v.hash: [] for v in versions}
    pairs = list(store.aliases().items())
    for run_id in dict.fromkeys(v.run_id for v in versions):
        pairs += [(name, v) for name, v in (("best", store.best(run_id)), ("latest", store.latest(run_id))) if v]
    for name, version in pairs:
        if version.hash in named:
            named[version.hash].append(name)
    return named


def _acceptance(store: Registry, version: Version) -> str:
    """In a line: accepted, refused, overridden, or nothing asked for."""
    verdict = store.evidence(version).get("accept")
    if verdict is None:
        return "; ".join(store.objections(version)) or "no success criterion is set"
    if override := verdict.get("override"):
        return f"no, overridden by {override['by']} at {override['time']}: {override['reason']}"
    return "yes" if verdict["accepted"] else f"no: {'; '.join(verdict['reasons'])}"


def _shown_metrics(versions: Sequence[Version]) -> list[str]:
    """Accuracy and loss where there are any, in front of the metric that chooses the best."""
    chosen = [str((v.manifest.get("selection") or {}).get("metric")) for v in versions]
    there = {name for v in versions for name in v.metrics}
    return [name for name in dict.fromkeys(("accuracy", "loss", *chosen)) if name in there]


def _when(version: Version) -> str:
    return str(version.manifest["created"])[:19].replace("T", " ")


def _chain(lineage: Sequence[Version]) -> str:
    """The lineage in one line, its middle left out where it is long."""
    names = [v.name for v in lineage]
    return " <- ".join(names if len(names) <= 6 else [*names[:3], f"({len(names) - 5} more)", *names[-2:]])


def _moved(alias: str, version: Version, before: str | None, as_json: bool) -> None:
    if as_json:
        _print_json({"alias": alias, "name": version.name, "hash": version.hash, "previous": before})
    elif before == version.name:
        _print(f"{alias} is {version.name} already")
    else:
        _print(f"{alias} is now {version.name}, {'was ' + before if before else 'the first one'}")


def _difference_tables(found: Difference) -> list[RenderableType]:
    relative = "" if found.relative is None else f" ({found.relative:.3g} of the parameters' own)"
    told = "the same parameters" if found.same_parameters else f"norm of the difference {found.norm:.6g}{relative}"
    norms = [(name, f"{norm:.6g}") for name, norm in found.norms.items()]
    columns = ("", found.a, found.b)
    sections = {
        "in one only, or in another shape": found.reshaped,
        "metrics": found.metrics,
        "config": found.config,
        "dataset": found.dataset,
        "model": found.model,
        "code": found.code,
        "signature": found.signature,
    }
    return [
        f"{found.a} -> {found.b}: {told}",
        *([] if found.same_parameters else [_table(("parameter", "norm"), norms, right=("norm",))]),
        *(
            _table((title, *columns[1:]), [(k, *pair) for k, pair in changes.items()])
            for title, changes in sections.items()
            if changes
        ),
    ]


def _dotted(manifest: Mapping[str, Any], section: str) -> list[tuple[str, Any]]:
    return [(f"{section}.{key}", value) for key, value in (manifest.get(section) or {}).items()]


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = (), header: bool = True
) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if header else None, show_header=header, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row))
    return table


def _tree(title: str, values: Mapping[str, Any]) -> RenderableType:
    from rich.text import Text
    from rich.tree import Tree

    def grow(branch: Tree, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                grow(branch.add(Text(str(key))), value)
            else:
                branch.add(Text(f"{key}: {_text(value)}"))

    tree = Tree(Text(title))
    grow(tree, values)
    return tree


def _print(*what: RenderableType) -> None:
    """To the terminal in its width; to a file or a pipe so wide that no hash and no path is broken."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False)
    for one in what:
        console.print(one)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))
