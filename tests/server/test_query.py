"""Query rounds over a real grid, against one pass over everybody's rows."""

from __future__ import annotations

import numpy as np
import pytest

from clients.grid import UnitGrid
from clients.inprocess import InProcess
from clients.setting import open_setting
from experiments.compose import compose
from experiments.prepare import load_data, prepare_data
from fl.data import analytics
from fl.data.count_noise import NoisyCounts
from fl.data.store import write_store
from fl.errors import BadInput, StoppedByFaults
from fl.messages import Query, QueryReport
from fl.metrics import Sums
from fl.signature import Signature
from server.query import asker

AGE, CHOLESTEROL, VESSELS, LABEL = 0, 4, 11, 13
ALL = tuple(range(14))


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """The devices of the heart disease data, and all their rows: 13 columns and the label."""
    folder = tmp_path_factory.mktemp("hospitals")
    settings = compose(["dataset=heart_disease", f"run_dir={folder / 'run'}"])
    prepared = prepare_data(settings, load_data(settings), centre=folder / "centre", devices=folder / "partitions")
    values = {**settings, "num_clients": prepared.num_clients}
    setting = open_setting(values, partitions=folder / "partitions", states=folder / "states")
    store = setting.store
    return setting, np.concatenate([store.x.astype(np.float64), store.y[:, None]], axis=1)


@pytest.fixture(scope="module")
def ask(hospitals):
    return asker(UnitGrid(run_id="1", num_clients=4, unit_size=2, executor=InProcess(hospitals[0])))


@pytest.fixture(scope="module")
def columns(hospitals):
    return [column[~np.isnan(column)] for column in hospitals[1].T]


def test_mean_and_variance_are_the_pooled_ones(ask, columns, hospitals):
    moments = analytics.moments(ask, ALL)
    for c, known in enumerate(columns):
        assert analytics.mean(ask, (c,))[c] == moments[c].mean == pytest.approx(known.mean(), rel=1e-12)
        assert analytics.variance(ask, (c,))[c] == moments[c].variance == pytest.approx(known.var(), rel=1e-12)
        assert (moments[c].low, moments[c].high, moments[c].count) == (known.min(), known.max(), len(known))
        assert moments[c].missing == len(hospitals[1]) - len(known)


def test_a_part_of_each_client_can_be_asked(ask, hospitals):
    store = hospitals[0].store
    train = np.concatenate([store.partition(c).train.x[:, AGE] for c in range(4)])
    assert analytics.moments(ask, (AGE,), part="train")[AGE].count == np.isfinite(train).sum()


def test_a_histogram_is_the_pooled_one(ask, columns):
    edges = (0.0, 100.0, 200.0, 250.0, 700.0)
    assert analytics.histogram(ask, {CHOLESTEROL: edges})[CHOLESTEROL].counts == tuple(
        np.histogram(columns[CHOLESTEROL], edges)[0]
    )


def test_quantiles_are_exact_after_enough_rounds_and_bounded_before(ask, columns):
    shares = (0.0, 0.01, 0.25, 0.5, 0.75, 1.0)
    for digits in (5, 8):  # the columns are float32
        found = analytics.quantiles(ask, ALL, shares, digits=digits)
        for c, known in enumerate(columns):
            assert found[c] == np.quantile(known, shares, method="inverted_cdf").tolist()
    for value, exact in zip(analytics.quantiles(ask, (AGE,), shares, digits=2)[AGE], found[AGE], strict=True):
        assert 0 <= exact - value <= exact * 2**-4


def test_heavy_hitters_and_distinct_values(ask, columns):
    hitters, distinct = analytics.heavy_hitters(ask, ALL, capacity=32), analytics.distinct(ask, ALL)
    for c, known in enumerate(columns):
        values, counts = np.unique(known, return_counts=True)
        assert distinct[c] == pytest.approx(len(values), rel=0.05)
        exact = dict(zip(values.tolist(), counts.tolist(), strict=True))
        assert all(n <= exact[v] <= n + hitters[c].lost for v, n in hitters[c].items)
        assert hitters[c].lost == 0 or len(values) > 32


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """Forty clients of very different sizes, whose values are very uneven: the question, and all the values."""
    folder, draw = tmp_path_factory.mktemp("skewed"), np.random.default_rng(4)
    sizes = np.maximum(1, (6_000 * np.arange(1, 41) ** -1.2)).astype(int)
    n = int(sizes.sum())
    x = np.stack(
        [
            draw.zipf(1.3, n).clip(max=1e9),  # a few values make up most, with a very long tail
            draw.lognormal(0, 4, n),  # hardly a value twice, over many orders of magnitude
            -np.floor(draw.exponential(3, n)),
            np.where(draw.random(n) < 0.999, 7.0, draw.normal(size=n)),
            np.where(draw.random(n) < 0.9, np.nan, draw.zipf(2.0, n)),
        ],
        axis=1,
    )
    order = np.argsort(x[:, 0], kind="stable")  # and each client has other values than the others
    x, parts = x[order], np.stack([sizes, 0 * sizes, 0 * sizes], axis=1)
    signature = Signature("classification", (5,), "float64", 2)
    write_store(folder / "p", x=x, y=np.zeros(n, int), parts=parts, signature=signature, name="s", fingerprint="0")
    values = {**compose(["dataset=heart_disease", f"run_dir={folder / 'run'}"]), "num_clients": 40}
    setting = open_setting(values, partitions=folder / "p", states=folder / "s", signature=signature)
    return asker(UnitGrid(run_id="1", num_clients=40, unit_size=8, executor=InProcess(setting))), x


def test_quantiles_of_skewed_data_are_exact(skewed):
    ask, x = skewed
    shares = (0.0, 0.001, 0.5, 0.9, 0.999, 1.0)
    for c, found in analytics.quantiles(ask, range(5), shares).items():
        known = x[~np.isnan(x[:, c]), c]
        assert found == np.quantile(known, shares, method="inverted_cdf").tolist()


@pytest.mark.parametrize("capacity", [8, 64])
def test_heavy_hitters_of_skewed_data_are_within_what_they_say(skewed, capacity):
    ask, x = skewed
    for c, found in analytics.heavy_hitters(ask, range(5), capacity=capacity).items():
        known = x[~np.isnan(x[:, c]), c]
        values, counts = np.unique(known, return_counts=True)
        exact, told = dict(zip(values.tolist(), counts.tolist(), strict=True)), dict(found.items)
        assert found.lost <= len(known) / (capacity + 1)
        for value, count in exact.items():  # all of them: what is not told has at most ``lost``
            assert told.get(value, 0) <= count <= told.get(value, 0) + found.lost
        first, second = np.sort(counts)[::-1][:2]
        if first - second > found.lost:
            assert found.top[0][0] == values[counts.argmax()]


def test_distinct_values_of_skewed_data_are_within_their_error(skewed):
    ask, x = skewed
    for c, found in analytics.distinct(ask, range(5)).items():
        exact = len(np.unique(x[~np.isnan(x[:, c]), c]))
        assert abs(found - exact) <= max(1.0, 3 * 1.04 / np.sqrt(4096) * exact)


def test_correlations_are_the_pooled_ones(ask, hospitals):
    found = analytics.correlation(ask, ALL)
    for i in ALL:
        for j in ALL:
            rows = hospitals[1][~np.isnan(hospitals[1][:, [i, j]]).any(axis=1)]
            assert found[i, j] == pytest.approx(np.corrcoef(rows[:, i], rows[:, j])[0, 1], rel=1e-10)


def test_noise_has_the_size_that_epsilon_says(ask, columns):
    edges = np.linspace(0, 100, 401)
    exact = np.histogram(columns[AGE], edges)[0]
    off = np.array(analytics.noisy_histogram(ask, {AGE: edges}, epsilon=0.5)[AGE].counts) - exact
    a = np.exp(-0.5)
    assert off.std() == pytest.approx(np.sqrt(4 * 2 * a) / (1 - a), rel=0.15)  # four clients
    assert abs(off.mean()) < 1
    again = np.array(analytics.noisy_histogram(ask, {AGE: edges}, epsilon=0.5)[AGE].counts) - exact
    assert (off != again).any(), "each round draws its own noise"
    with pytest.raises(BadInput, match="epsilon: got 0"):
        analytics.noisy_histogram(ask, {AGE: edges}, epsilon=0)


def test_what_is_spent_adds_up_to_epsilon_and_nothing_exact_is_told(ask, hospitals):
    """Over all queries, rounds and columns; of an answer with noise not even the number of examples crosses."""
    spent, told = [], []

    def watched(query):
        answers = ask(query)
        assert query.kind == "noisy_histogram"
        spent.append(query.numbers["epsilon"][0])
        told.extend(report.num_examples for report in answers.reports)
        return answers

    found = analytics.noisy_histogram(watched, dict.fromkeys(ALL, (0.0, 1.0, 2.0)), epsilon=3.0)
    assert spent == [pytest.approx(3.0)] and set(told) == {0}
    assert {counts.epsilon for counts in found.values()} == {3.0 / 14} and found[0].num_clients == 4


def test_of_more_columns_than_a_round_takes_each_has_its_share_of_epsilon():
    asked = []

    def ask(query):
        asked.append(query)
        sums = {str(c): Sums((0.0,) * 2) for c in query.columns}
        return analytics.Answers(query, [QueryReport((0,), 1, 0, sums)], {})

    analytics.noisy_histogram(ask, dict.fromkeys(range(70), (0.0, 1.0, 2.0)), epsilon=7.0)
    shares = [(query.numbers["epsilon"][0], len(query.columns)) for query in asked]
    assert [columns for _, columns in shares] == [32, 32, 6]
    assert [epsilon / columns for epsilon, columns in shares] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("clients, epsilon", [(1, 0.1), (4, 1.0), (300, 0.05)])
def test_the_bounds_on_noise_hold_as_often_as_they_say(clients, epsilon):
    """Of histograms of 32 counts: all counts, and all ranks, within the bounds 95 times of 100; and not far within."""
    counts = NoisyCounts((0.0,) * 32, clients, epsilon)
    draw, stop, times = np.random.default_rng(0), -np.expm1(-epsilon), 2_000
    noise = np.zeros((times, 32))
    for _ in range(clients):
        noise += draw.geometric(stop, noise.shape) - draw.geometric(stop, noise.shape)
    largest = np.abs(noise).max(axis=1)
    highest = np.abs(noise.cumsum(axis=1)).max(axis=1)
    for seen, bound in ((largest, counts.count_error()), (highest, counts.rank_error())):
        assert (seen <= bound).mean() >= 0.95
        assert bound <= 2 * np.quantile(seen, 0.95)


def test_each_client_can_answer_for_itself(ask, hospitals):
    answers = ask(Query("moments", (AGE,), by_client=True))
    store = hospitals[0].store
    for client, statistics in answers.by_client().items():
        assert statistics[str(AGE)].count == np.isfinite(store.x[:, AGE][_rows_of(store, client)]).sum()
    assert sorted(answers.by_client()) == [0, 1, 2, 3]


def _rows_of(store, client):
    sizes = store.parts.sum(axis=1)
    return slice(int(sizes[:client].sum()), int(sizes[: client + 1].sum()))


def test_a_sum_that_lacks_a_client_is_no_answer(ask):
    answers = ask(Query("moments", (14,)))
    assert answers.failures[2] == "client 2 failed: there is no column 14, only 0 to 13"
    with pytest.raises(StoppedByFaults, match="0 of 4 clients answered"):
        answers.pooled()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"kind": "examples"}, "query: got examples, allowed: moments, comoments"),
        ({"columns": ()}, "query.columns: got"),
        ({"part": "server"}, "query.part: got server, allowed: all, train, validation, test"),
        ({"numbers": {"edges/0": (0.0, float("nan"))}}, "query.numbers: got a NaN"),
    ],
)
def test_a_query_is_checked_where_it_is_made(wrong, message):
    with pytest.raises(BadInput, match=message):
        Query(**{"kind": "moments", "columns": (0,), **wrong})
