"""`fl deploy`: order a release by one of eight policies, follow it, and steer it.

It writes to the registry and nothing else; whoever serves the alias (`fl serve`, the fleet of devices) follows.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from typer.core import TyperCommand

from experiments.versions import REGISTRY, Folder, Json, Reason

if TYPE_CHECKING:
    from fl.releases import Release

app = typer.Typer(
    no_args_is_help=True,
    help="Let a version take over from the one that an alias names, by a release policy; follow and steer it.",
    epilog="A RELEASE is the id that `fl deploy POLICY` prints; left out, it is the newest one.",
)

POLICIES = {
    "recreate": "Stop the champion, then start the challenger: nobody is answered in between.",
    "rolling": "Replace replica by replica, each watched before the next.",
    "blue_green": "Try the challenger on copies of requests, then switch everybody at once; the way back stays open.",
    "canary": "Give the challenger more and more users while it does no harm.",
    "shadow": "Let challengers answer copies of requests, and report; users never notice.",
    "ab_test": "Test a hypothesis on users who are split for good, planned, and looked at any time.",
    "bandit": "Let traffic follow the rewards.",
    "feature_flag": "Let a flag say who sees the challenger.",
}
"""Of fl.deployment, which is imported by the commands themselves."""
STEERING = "Follow and steer"

Challengers = Annotated[
    list[str] | None,
    typer.Option(
        "--challenger", metavar="VERSION", help="What is to take over; several times where it may be several."
    ),
]
Id = Annotated[str | None, typer.Argument(metavar="[RELEASE]", help="Its id; the newest if left out.")]


class _Order(TyperCommand):
    """An order whose help lists the options of its policy."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from fl.deployment import POLICIES as KINDS

        lines = (
            f"{name}={json.dumps(option.default)}: {option.means} ({option.allowed})."
            for name, option in KINDS[self.name or ""].options.items()
        )
        self.epilog = "\n\n".join(("--option NAME=VALUE, with these defaults:", *lines))
        super().format_help(ctx, formatter)


def _ordering(policy: str) -> Any:
    def command(
        challenger: Challengers = None,
        registry: Folder = REGISTRY,
        option: Annotated[
            list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Of the policy; see below.")
        ] = None,
        target: Annotated[str, typer.Option("--target", help="http, or devices: the fleet.")] = "http",
        serves: Annotated[str, typer.Option("--serves", help="The alias that moves in the end.")] = "champion",
        seed: Annotated[int, typer.Option("--seed", help="Of whatever the policy draws.")] = 1,
        as_json: Json = False,
    ) -> None:
        made = order(
            policy, challenger or [], registry=registry, given=option or [], target=target, serves=serves, seed=seed
        )
        if as_json:
            typer.echo(json.dumps(made.to_dict(), indent=2))
        else:
            typer.echo(made.id)
            typer.echo(f"follow it: fl deploy watch {made.id} --registry {registry}", err=True)

    return command


for _policy, _help in POLICIES.items():
    app.command(_policy, help=_help, cls=_Order)(_ordering(_policy))


def order(
    policy: str, challengers: list[str], *, registry: Path, given: list[str], target: str, serves: str, seed: int
) -> Release:
    """Check everything, then record the release. Raises BadInput; NotAccepted where the alias could never move."""
    from experiments.versions import user
    from fl.deployment import checked_options
    from fl.errors import NotAccepted
    from fl.registry import Registry, releases

    options = checked_options(policy, typed(given), challengers=len(challengers))
    store = Registry.existing(registry)
    for name in challengers if serves == "champion" and policy != "shadow" else ():
        version = store.version(name)
        if against := store.objections(version):
            raise NotAccepted(version=version.name, reasons=against)
    made = releases.order(
        store.folder,
        policy=policy,
        versions=tuple(challengers),
        options=options,
        target=target,
        serves=serves,
        seed=seed,
        by=user(),
    )
    if serves == "champion":
        store.promote(made.arms[1].version, "challenger", reason=made.id, by=made.by)
    return made


def typed(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE texts as values: JSON where it is, numbers with commas as a list, else the text. Raises BadInput."""
    from fl.errors import BadInput

    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or name in found:
            raise BadInput(key="--option", got=text, allowed="NAME=VALUE, each name once")
        for reading in (value, f"[{value}]"):
            try:
                found[name] = json.loads(reading)
                break
            except ValueError:
                found[name] = value
    return found


@app.command("list", rich_help_panel=STEERING)
def list_command(registry: Folder = REGISTRY, as_json: Json = False) -> None:
    """List releases, the newest last."""
    from experiments.printing import print_table
    from fl.registry import releases

    known = [_told(registry, release) for release in releases.releases(registry)]
    if as_json:
        typer.echo(json.dumps(known, indent=2))
    else:
        columns = ("release", "target", "serves", "state", "winner", "why")
        print_table(columns, [[one[column] for column in columns] for one in known])


@app.command(rich_help_panel=STEERING)
def status(release: Id = None, registry: Folder = REGISTRY, as_json: Json = False) -> None:
    """Say where a release stands, who gets what, and what was decided."""
    from experiments.printing import print_table
    from fl.registry import releases

    found = _found(registry, release)
    told = _told(registry, found)
    decided = releases.decisions(registry, found.id)
    if as_json:
        typer.echo(json.dumps({**told, "decisions": decided, "ordered": found.to_dict()}, indent=2))
        return
    rows = [(key, value) for key, value in told.items() if key != "arms"]
    rows += [(name, f"{about['version']}, {about['share']:.1%}") for name, about in told["arms"].items()]
    rows += [(line["time"][:19], f"{line['action']}: {line['reason']}") for line in decided[-10:]]
    print_table(("", ""), rows)


@app.command(rich_help_panel=STEERING)
def watch(
    release: Id = None,
    registry: Folder = REGISTRY,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.0, help="Give up after so long, status 3.")
    ] = None,
) -> None:
    """Print what changes, until the release ends: status 0 if it was promoted or finished, 1 if it was rolled back."""
    from fl.registry import releases

    found, started, last = _found(registry, release), time.monotonic(), ""
    while True:
        told = _told(registry, found)
        line = f"{told['state']}: {told['why']}"
        if line != last:
            typer.echo(line)
        last = line
        ended = releases.ending(registry, found.id)
        if ended is not None:
            raise typer.Exit(1 if ended["ended"] == "rolled back" else 0)
        if seconds is not None and time.monotonic() - started > seconds:
            raise typer.Exit(3)
        time.sleep(0.25)


@app.command(rich_help_panel=STEERING)
def compare(
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Releases of each kind under each policy.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same table.")] = 1,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a README.")] = False,
    as_json: Json = False,
) -> None:
    """Simulate all policies with better, worse, slower, crashing and biased challengers: which is for what."""
    from experiments.release_comparison import compare as measure
    from experiments.release_comparison import show

    show(measure(repeats=repeats, seed=seed), as_json=as_json, markdown=markdown)


def _asking(action: str) -> Any:
    def command(release: Id = None, registry: Folder = REGISTRY, reason: Reason = "") -> None:
        _ask(registry, release, action, reason=reason)

    return command


for _action, _help in (
    ("pause", "Let everybody stay where they are; what is counted meanwhile does not count."),
    ("go-on", "Go on after a pause."),
    ("abort", "End a release: everybody goes back to the champion."),
):
    app.command(_action, help=_help, rich_help_panel=STEERING)(_asking(_action))


@app.command(rich_help_panel=STEERING)
def promote(
    release: Id = None,
    registry: Folder = REGISTRY,
    arm: Annotated[str | None, typer.Option("--arm", help="Which challenger: challenger-2 is the second.")] = None,
    reason: Reason = "",
) -> None:
    """End a release: the challenger takes over now, if it is accepted."""
    _ask(registry, release, "promote", reason=reason, arm=arm)


def _ask(registry: Path, release: str | None, action: str, *, reason: str, arm: str | None = None) -> None:
    from experiments.versions import user
    from fl.errors import NotAccepted
    from fl.registry import Registry, releases

    found = _found(registry, release)
    if action == "promote" and found.serves == "champion":
        store = Registry(registry)
        version = store.version(found.version(arm if arm in found.names else found.names[1]))
        if against := store.objections(version):
            raise NotAccepted(version=version.name, reasons=against)
    releases.ask(registry, found.id, action, reason=reason, by=user(), arm=arm)
    typer.echo(f"{found.id}: {action} is asked for; whoever leads the release follows")


def _found(registry: Path, release: str | None) -> Release:
    from fl.errors import BadInput
    from fl.registry import releases

    if release is not None:
        return releases.release(registry, release)
    known = releases.releases(registry)
    if not known:
        raise BadInput(key="RELEASE", got="nothing", allowed=f"a release of {registry}: none is there yet")
    return known[-1]


def _told(registry: Path, release: Release) -> dict[str, Any]:
    """A release as people read it: where it stands, the arms with their versions and shares, and why."""
    from fl.deployment import policy_for
    from fl.errors import BadInput
    from fl.registry import Registry, releases

    store, policy = Registry(registry), policy_for(release)
    standing, ended = releases.read_state(registry, release.id), releases.ending(registry, release.id)
    asked = releases.asked(registry, release.id)
    state = standing.state if standing else policy.begin()
    shares = policy.routing(state).shares
    arms = {}
    for arm in release.arms:
        try:
            name = store.version(arm.version).name
        except BadInput:
            name = arm.version[:12]
        arms[arm.name] = {"version": name, "hash": arm.version, "share": shares[arm.name]}
    paused = asked is not None and asked["action"] == "pause"
    waits = "paused" if paused else "open" if standing else "open, nobody leads it yet"
    return {
        "release": release.id,
        "policy": release.policy,
        "target": release.target,
        "serves": release.serves,
        "state": ended["ended"] if ended else waits,
        "winner": ended["winner"] if ended else None,
        "why": ended["reason"] if ended else standing.decision.reason if standing else "",
        "arms": arms,
    }
