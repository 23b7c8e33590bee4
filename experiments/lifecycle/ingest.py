"""Ingest: the data from wherever they are, checked, as arrays that know themselves."""

from __future__ import annotations

from experiments.lifecycle.inputs import data_sources
from experiments.lifecycle.stage import Quality, Result, Stage, Work
from experiments.prepare import FRACTIONS


def run(work: Work) -> Result:
    """Read the data that ``dataset`` names, and write them as arrays into ``work.folder``."""
    from experiments.prepare import load_data
    from experiments.recorded_data import about
    from fl.data.dataset import fingerprint
    from fl.data.intake import read_intake, write_intake

    dataset = load_data(work.settings)
    write_intake(work.folder, dataset)
    evidence = about(work.settings, dataset)
    clients = evidence["natural_clients"]
    whose = f" of {clients} clients" if clients else ""
    return Result(
        evidence,
        f"{dataset.name}: {len(dataset):,} examples{whose}, {evidence['missing_values']:,} values missing",
        {"what was written is what was read": fingerprint(read_intake(work.folder)) == evidence["fingerprint"]},
    )


STAGE = Stage(
    name="ingest",
    after=(),
    reads=(
        "dataset",
        *(f"-dataset.{part}_fraction" for part in FRACTIONS),
        "-dataset.max_server_test",
        "-dataset.quarantine",
        "-dataset.recipe",
        "seed",
    ),
    code=("experiments.lifecycle.ingest", "experiments.prepare", "experiments.recorded_data", "fl.data"),
    run=run,
    quality=Quality(
        requirement="every row of the source is a row of numbers with a label; its content is known by hash",
        risk="a broken file, a text among numbers, a row without label: trained on as something else",
        check="rows, columns, types and labels are checked as they are read; what is written is read back and compared",
    ),
    sources=data_sources,
)
