"""The profile that nobody showed a row for is the one of the pooled rows."""

from __future__ import annotations

import json
import resource
import time

import numpy as np
import pytest

from clients.grid import UnitGrid
from clients.inprocess import InProcess
from clients.setting import open_setting
from experiments.compose import compose
from experiments.prepare import load_data, prepare_data
from experiments.private_columns import asked, public_bounds
from fl.data.profile import NUM_BINS, SHARES, bin_edges, profile
from fl.data.store import open_store, write_store
from fl.errors import BadInput
from fl.signature import Signature
from server.query import asker


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Heart disease at four hospitals: the private columns, and all their rows."""
    folder = tmp_path_factory.mktemp("hospitals")
    settings = compose(["dataset=heart_disease", f"run_dir={folder / 'run'}"])
    prepare_data(settings, load_data(settings), centre=folder / "centre", devices=folder / "devices")
    store = open_store(folder / "devices")
    rows = np.concatenate([store.x.astype(np.float64), store.y[:, None]], axis=1)
    with asked(settings, centre=folder / "centre", partitions=folder / "devices", states=folder / "s") as columns:
        yield columns, rows


def assert_pooled(found, rows, *, at_least):
    """A profile against one pass over the rows: exact where additive, within the stated error elsewhere."""
    for c, column in enumerate(found["columns"]):
        known = rows[np.isfinite(rows[:, c]), c].astype(np.float64)
        assert (column["count"], column["missing"]) == (len(known), len(rows) - len(known))
        assert (column["min"], column["max"]) == (known.min(), known.max())
        assert column["mean"] == pytest.approx(known.mean(), rel=1e-12)
        assert column["deviation"] == pytest.approx(known.std(), rel=1e-12)
        exact = np.quantile(known, list(SHARES.values()), method="inverted_cdf")
        assert list(column["quantiles"].values()) == exact.tolist()
        counts = np.histogram(known, column["histogram"]["edges"])[0]
        assert column["histogram"]["counts"] == counts.tolist()
        values, often = np.unique(known, return_counts=True)
        assert abs(column["distinct"] - len(values)) <= 3 * column["distinct_error"] * len(values)
        occurs = dict(zip(values.tolist(), often.tolist(), strict=True))
        for one in column["top"]:
            assert one["count"] <= occurs[one["value"]] <= one["count"] + column["top_lost"]
        assert column["top_lost"] <= len(known) / 64 + 4 * (at_least - 1) or len(values) > 64


@pytest.mark.parametrize("at_least", [1, 5])
def test_the_federated_profile_is_the_pooled_one(hospitals, at_least):
    columns, rows = hospitals
    found = profile(columns.ask, names=columns.names, class_names=("healthy", "ill"), at_least=at_least)
    assert_pooled(found, rows, at_least=at_least)
    assert json.loads(json.dumps(found)) == found, "plain JSON"
    for i, j in ((0, 7), (13, 9), (12, 11)):
        both = rows[np.isfinite(rows[:, [i, j]]).all(axis=1)]
        assert found["correlation"][i][j] == pytest.approx(np.corrcoef(both[:, i], both[:, j])[0, 1], rel=1e-10)


def test_columns_have_a_type_and_the_label_is_known(hospitals):
    columns, _ = hospitals
    found = {c["name"]: c for c in profile(columns.ask, names=columns.names)["columns"]}
    kinds = {name: found[name]["type"] for name in ("age", "sex", "oldpeak", "label")}
    assert kinds == {"age": "whole", "sex": "binary", "oldpeak": "real", "label": "binary"}
    assert [name for name, c in found.items() if c["role"] == "label"] == ["label"]


def test_a_part_of_each_client_is_profiled_alone(hospitals):
    columns, _ = hospitals
    counts = [
        profile(columns.ask, names=columns.names, part=part)["columns"][0]["count"]
        for part in ("train", "validation", "test", "all")
    ]
    assert sum(counts[:3]) == counts[3] and min(counts) > 0


def test_with_epsilon_only_noisy_histograms_are_asked(hospitals):
    columns, rows = hospitals
    kinds = []

    def watched(query):
        kinds.append(query.kind)
        return columns.ask(query)

    bounds = {c: (float(np.nanmin(rows[:, c])), float(np.nanmax(rows[:, c]))) for c in range(14)}
    found = profile(watched, names=columns.names, epsilon=50.0, bounds=bounds)
    assert set(kinds) == {"noisy_histogram"}
    assert found["epsilon"] == 50.0 and found["correlation"] is None
    for c, column in enumerate(found["columns"]):
        known = rows[np.isfinite(rows[:, c]), c]
        a = np.exp(-50 / 14)
        noise = np.sqrt(NUM_BINS * 4 * 2 * a) / (1 - a)
        assert abs(column["count"] - len(known)) <= 4 * noise
        assert abs(column["median"] - np.median(known)) <= 2 * column["bin_width"]
        assert "min" not in column and "top" not in column
    with pytest.raises(BadInput, match="bounds: got none for column 0"):
        profile(columns.ask, names=columns.names, epsilon=1.0)
    assert len(public_bounds(columns)) == 14


def test_with_epsilon_the_errors_are_what_is_said(hospitals):
    """200 draws of the noise: in 95 of a hundred profiles all numbers of all columns are within what is said of them,
    and what is said is no more than it takes: some mean and some deviation come near it.
    """
    columns, rows = hospitals
    bounds = {c: (float(np.nanmin(rows[:, c])), float(np.nanmax(rows[:, c]))) for c in range(14)}
    bounds[4] = (150.0, 250.0)  # cholesterol beyond these counts as these
    exact = [np.clip(rows[np.isfinite(rows[:, c]), c], *bounds[c]) for c in range(14)]
    draws, right, nearest, widest = 200, 0, {"mean": 0.0, "deviation": 0.0}, 0.0
    for _ in range(draws):
        found = profile(columns.ask, names=columns.names, epsilon=20.0, bounds=bounds)
        assert found["probability"] == 0.95
        right += all(_within(column, exact[c]) for c, column in enumerate(found["columns"]))
        for column, known in zip(found["columns"], exact, strict=True):
            for name, value in (("mean", known.mean()), ("deviation", known.std())):
                nearest[name] = max(nearest[name], abs(column[name] - value) / column[f"{name}_error"])
            widest = max(widest, column["mean_error"] / (known.max() - known.min()))
    assert right >= 0.95 * draws
    assert min(nearest.values()) > 0.3 and widest < 0.3


def _within(column, known):
    edges, counts = np.array(column["histogram"]["edges"]), np.array(column["histogram"]["counts"])
    exact = np.histogram(known, edges)[0]
    told = [
        np.abs(counts - exact).max() <= column["count_error"],
        abs(column["count"] - len(known)) <= column["total_error"],
        abs(column["mean"] - known.mean()) <= column["mean_error"],
        abs(column["deviation"] - known.std()) <= column["deviation_error"],
    ]
    for name, value in column["quantiles"].items():
        low, high = (known < value - column["bin_width"] / 2).sum(), (known <= value + column["bin_width"] / 2).sum()
        rank = SHARES[name] * len(known)
        told.append(low - column["rank_error"] <= rank <= high + column["rank_error"])
    return all(told)


def test_edges_suit_the_column():
    assert bin_edges(1.0, 3.0, whole=True) == (0.5, 1.5, 2.5, 3.5)
    assert len(bin_edges(0.0, 1.0)) == NUM_BINS + 1
    low, *_, high = bin_edges(7.0, 7.0)
    assert low < 7 < high


def test_noise_that_drowns_everything_says_so(hospitals):
    columns, rows = hospitals
    bounds = {c: (float(np.nanmin(rows[:, c])), float(np.nanmax(rows[:, c]))) for c in range(14)}
    for c, column in enumerate(profile(columns.ask, names=columns.names, epsilon=0.001, bounds=bounds)["columns"]):
        known, (low, high) = rows[np.isfinite(rows[:, c]), c], bounds[c]
        assert abs(column["mean"] - known.mean()) <= column["mean_error"] <= 1.1 * (high - low + column["bin_width"])
        assert abs(column["deviation"] - known.std()) <= column["deviation_error"] <= high - low + column["bin_width"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_million_rows_at_a_thousand_clients(tmp_path, settings, capsys):
    """Its time and memory are printed; the numbers are those of the pooled rows."""
    num_rows, num_clients, num_columns = 10_000_000, 1000, 10
    random = np.random.default_rng(1)
    x = random.standard_normal((num_rows, num_columns), dtype=np.float32)
    x[:, 1] = np.exp(3 * x[:, 1])
    x[:, 2] = np.floor(np.abs(20 * x[:, 2]))
    x[random.random(num_rows) < 0.1, 3] = np.nan
    y = (x[:, 0] + x[:, 4] > 0.5).astype(np.int64)
    sizes = np.full(num_clients, num_rows // num_clients)
    names = tuple(f"x{c}" for c in range(num_columns))
    signature = Signature("classification", (num_columns,), "float32", 2, feature_names=names)
    parts = np.stack([sizes, 0 * sizes, 0 * sizes], axis=1)
    write_store(tmp_path / "devices", x=x, y=y, parts=parts, signature=signature, name="big", fingerprint="0")
    values = settings("model=softmax") | {"num_clients": num_clients, "cohort_size": num_clients}
    setting = open_setting(values, partitions=tmp_path / "devices", states=tmp_path / "states", signature=signature)
    grid = UnitGrid(run_id="1", num_clients=num_clients, unit_size=16, executor=InProcess(setting))
    before, began, busy = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
    found = profile(asker(grid), names=(*names, "label"))
    took, busy = time.perf_counter() - began, time.process_time() - busy
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    with capsys.disabled():
        print(f"\n10,000,000 rows, 1,000 clients, 11 columns: {took:.0f} s, {busy:.0f} CPU s, {more:.0f} MB more")
    assert_pooled(found, np.column_stack([x, y]).astype(np.float32), at_least=5)
    assert found["correlation"][0][4] == pytest.approx(np.corrcoef(x[:, 0], x[:, 4], dtype=np.float64)[0, 1], rel=1e-8)
