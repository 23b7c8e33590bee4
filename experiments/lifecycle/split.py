"""Split: the server's test set and public part, and every client's partition in its parts."""

from __future__ import annotations

from pathlib import Path

from experiments.lifecycle.stage import Quality, Result, Settings, Stage, Work

CENTRE, PARTITIONS = "centre", "devices/partitions"


def run(work: Work) -> Result:
    """Deal the data to clients as a run would; the centre's folder and the devices' lie in ``work.folder``."""
    from experiments.prepare import prepare_data
    from fl.data.centre import open_centre
    from fl.data.describe import describe
    from fl.data.intake import read_intake

    dataset = read_intake(work.before["ingest"].folder)
    prepared = prepare_data(work.settings, dataset, centre=work.folder / CENTRE, devices=work.folder / PARTITIONS)
    facts = describe(open_centre(prepared.centre_dir))
    del facts["picture"]  # a file of this folder
    rows = len(dataset) + (0 if dataset.x_test is None else len(dataset.x_test))
    dealt = facts["examples"] + facts["public_examples"] + facts["server_test_examples"]
    dealt += facts.get("quarantined_examples", 0)
    whole = facts["overlapping"] or work.settings["dataset"].get("max_server_test") is not None or dealt == rows
    sizes = prepared.sizes
    return Result(
        facts,
        f"{prepared.num_clients} clients with {sizes['min']:g} to {sizes['max']:g} examples; "
        f"{facts['public_examples']} public, {facts['server_test_examples']} for the server's test",
        {"every row is in one place": whole},
    )


def sources(settings: Settings) -> dict[str, str | None]:
    """The clients that are left out."""
    from fl.files import sha256_file

    file = settings["dataset"].get("quarantine")
    return {"quarantine": sha256_file(Path(file)) if Path(file).is_file() else None} if file else {}


STAGE = Stage(
    name="split",
    after=("ingest",),
    reads=("dataset", "partition", "num_clients", "seed", "server.seeding"),
    code=("experiments.lifecycle.split", "experiments.prepare", "fl.data"),
    run=run,
    sources=sources,
    quality=Quality(
        requirement="no row is in two parts; statistics of the table come from training parts alone, merged",
        risk="a test row that was trained on makes the model look better than it is",
        check="rows of the parts are counted against rows of the data",
    ),
)
