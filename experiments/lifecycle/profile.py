"""Profile: what the columns hold, by merged statistics of the clients; a page for people beside it."""

from __future__ import annotations

from experiments.lifecycle.inputs import quarantine_source
from experiments.lifecycle.stage import Quality, Result, Stage, Work

PAGE = "profile.html"
NO_TABLE = "nothing to do: not a table"
"""What stages that look at columns find in pictures and texts."""


def run(work: Work) -> Result:
    """Deal the data to clients, and ask them about their columns; no row leaves one."""
    from experiments.private_columns import dealt, profile_columns
    from fl.data.intake import read_intake
    from fl.data.report import write_report

    dataset = read_intake(work.before["ingest"].folder)
    if not dataset.is_table:
        return Result({"table": False}, NO_TABLE)
    # Of all parts together: how large they are changes nothing.
    whole = {**work.settings["dataset"], "validation_fraction": 0.0, "test_fraction": 0.0}
    with dealt({**work.settings, "dataset": whole}, dataset) as columns:
        found = profile_columns(columns)
        facts = {"clients": columns.centre.num_clients, "partition": work.settings["partition"]["name"]}
        rows = columns.centre.facts["examples"]
    write_report(found, work.folder / PAGE, title=f"{dataset.name}: profile of private columns", facts=facts)
    gaps = sum(column["missing"] for column in found["columns"])
    counted = {column["count"] + column["missing"] for column in found["columns"]}
    return Result(
        {"table": True, **facts, **found},
        f"{len(found['columns'])} columns at {facts['clients']} clients, {gaps:,} values missing; see {PAGE}",
        {"every row was counted in every column": counted == {rows} or columns.centre.facts["overlapping"]},
    )


STAGE = Stage(
    name="profile",
    after=("ingest",),
    reads=(
        *("dataset", "-dataset.validation_fraction", "-dataset.test_fraction", "-dataset.recipe"),
        *("partition", "num_clients", "seed", "server.seeding"),
    ),
    code=(
        "experiments.lifecycle.profile",
        "experiments.asking",
        "experiments.private_columns",
        "clients.query",
        "server.query",
        "fl.data",
    ),
    run=run,
    quality=Quality(
        requirement="what is known of the columns is true of all clients together, and nobody showed a row",
        risk="a model of data that nobody has looked at; a look that gives people away",
        check="clients answer queries whose statistics merge; the rows they counted are all rows they were dealt",
    ),
    sources=quarantine_source,
)
