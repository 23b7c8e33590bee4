"""Split: the server's test set and public part, and every client's partition in its parts."""

from __future__ import annotations

from experiments.lifecycle.stage import Quality, Result, Stage, Work
from experiments.lifecycle.validate import QUARANTINED, without_quarantined
from experiments.lifecycle.wrangle import DEALT, FEATURED, read_features

CENTRE, PARTITIONS = "centre", "devices/partitions"


def run(work: Work) -> Result:
    """Deal the data to clients as a run would; the centre's folder and the devices' lie in ``work.folder``."""
    from experiments.prepare import prepare_data
    from fl.data.centre import open_centre
    from fl.data.describe import describe
    from fl.data.intake import read_intake

    dataset = read_intake(work.before["ingest"].folder)
    known = read_features(work)
    prepared = prepare_data(
        without_quarantined(work),
        dataset,
        centre=work.folder / CENTRE,
        devices=work.folder / PARTITIONS,
        recipe=known.recipe or None,
    )
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
        {"every row is in one place": whole, "features are those that wrangle fitted": prepared.signature == known},
    )


STAGE = Stage(
    name="split",
    after=("ingest", QUARANTINED, FEATURED),
    reads=DEALT,
    code=("experiments.lifecycle.split", "experiments.prepare", "fl.data"),
    run=run,
    quality=Quality(
        requirement="no row is in two parts; statistics of the table come from training parts alone, merged",
        risk="a test row that was trained on makes the model look better than it is",
        check="rows of the parts are counted against rows of the data, features compared with those that were fitted",
    ),
)
