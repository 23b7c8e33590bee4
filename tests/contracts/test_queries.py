"""Query rounds keep the promises of every round: the same bits on any engine, and nothing leaves undeclared."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Message

from clients.dispatch import Dispatcher
from clients.forked import ForkedPool
from clients.grid import UnitGrid
from clients.inprocess import InProcess
from clients.setting import open_setting
from clients.unit import answer
from experiments.prepare import load_data, prepare_data
from fl import wire
from fl.data.recipe_effects import recipe_effects
from fl.data.recipes import fit_recipe, read_recipe
from fl.messages import MAX_STATISTIC_VALUES, MAX_STATISTICS, QUERIES, Query
from fl.metrics import Counts
from server.query import asker

COLUMNS = (0, 3, 8)  # the last is the label
EDGES = {f"edges/{c}": (-1.0, 0.0, 1.0, 2.0) for c in COLUMNS}
BRINGS = {
    "histogram": EDGES,
    "noisy_histogram": {**EDGES, "epsilon": (1.0,)},
    "digits": {"place": (0.0,), **{f"prefix/{c}": (0,) for c in COLUMNS}},
    "heavy_hitters": {"capacity": (8.0,), "at_least": (2.0,)},
    "grouped": {"groups": (0.0, 1.0), "by": (8.0,), "at_least": (2.0,)},
    "outside": {"range/0": (-1.0, 1.0), "set/8": (0.0, 1.0)},
    "labels": {"classes": (3.0,), **EDGES},
    "rows": {"capacity": (64.0,)},
    "served_versions": {"edges": (0.0, 1.0)},
}


@pytest.fixture
def setting(settings, tmp_path):
    values = settings()
    prepared = prepare_data(values, load_data(values), centre=tmp_path / "centre", devices=tmp_path / "partitions")
    values["num_clients"] = prepared.num_clients
    return open_setting(values, partitions=tmp_path / "partitions", states=tmp_path / "states")


def grid(setting, executor, unit_size=2):
    return UnitGrid(run_id="7", num_clients=setting.store.num_clients, unit_size=unit_size, executor=executor)


def everything(ask):
    """Every kind of query, with merged and with separate answers."""
    queries = [Query(k, COLUMNS, BRINGS.get(k, {}), by_client=each) for k in QUERIES for each in (False, True)]
    return [(query, ask(query)) for query in queries]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_same_bits_in_this_process_and_in_any_number_of_others(setting, num_workers):
    expected = everything(asker(grid(setting, InProcess(setting))))
    pool = Dispatcher(ForkedPool(setting), num_workers=num_workers)
    try:
        assert everything(asker(grid(setting, pool))) == expected
    finally:
        pool.close()


def test_nothing_crosses_but_the_statistics_that_a_query_declares(setting, monkeypatch):
    crossed: list[Message] = []
    real = UnitGrid.send_and_receive

    def watched(self, messages, *, timeout=None):
        messages = list(messages)
        replies = real(self, messages, timeout=timeout)
        crossed.extend([*messages, *replies])
        return replies

    monkeypatch.setattr(UnitGrid, "send_and_receive", watched)
    asked = everything(asker(grid(setting, InProcess(setting))))
    replies = [message for message in crossed if message.metadata.reply_to_message_id]
    assert len(replies) == len(QUERIES) * (3 + 6)
    assert [answers.query.round for _, answers in asked] == list(range(1, 2 * len(QUERIES) + 1))
    for reply in replies:
        assert not reply.content.array_records
        assert set(reply.content) == {"metrics", "statistics"}
        assert set(reply.content["metrics"]) == {"client", "clients", "num-examples"}
        statistics = reply.content["statistics"]
        assert 0 < len(statistics) <= MAX_STATISTICS
        assert all(len(numbers) <= MAX_STATISTIC_VALUES + 2 for numbers in statistics.values())
    sent = {name for message in crossed for record in message.content.config_records.values() for name in record}
    held = {key.partition(":")[0] for key in sent if ":" in key}
    assert held == {declared.__name__.lower() for declared in QUERIES.values()}
    assert not any(_shares_a_row(reply, setting.store.x) for reply in replies)


def test_nothing_but_merged_statistics_of_training_parts_crosses_while_a_recipe_is_fitted(setting, monkeypatch):
    """All that crosses is recorded: declared statistics of training parts, each of a whole unit; to look whether test
    parts would miss a value, counts.
    """
    asked: list[Query] = []
    crossed: list[Message] = []
    real = UnitGrid.send_and_receive

    def watched(self, messages, *, timeout=None):
        replies = list(real(self, messages, timeout=timeout))
        crossed.extend(replies)
        return replies

    def ask(query):
        asked.append(query)
        return asker(watching)(query)

    monkeypatch.setattr(UnitGrid, "send_and_receive", watched)
    watching = grid(setting, InProcess(setting), unit_size=3)
    written = [
        {"deduplicate": {}},
        {"outliers": {"action": "drop", "by": "deviation"}},
        {"impute": {"indicator": True}},
        {"discretise": {"columns": ["x0"], "by": "uniform"}},
        {"impute": {"columns": ["x0"], "by": "most_frequent"}},
        {"encode": {"columns": ["x0"]}},
        {"scale": {}},
    ]
    recipe = fit_recipe(read_recipe(written), ask, inputs=setting.signature.input_names)
    fitted = len(asked)
    recipe_effects(ask, recipe)
    assert {query.part for query in asked[:fitted]} == {"train"} and not any(query.by_client for query in asked)
    assert {query.kind for query in asked[fitted:]} == {"moments"}
    assert {query.kind for query in asked} <= {"moments", "digits", "heavy_hitters"}
    assert len(crossed) == 2 * len(asked), "six clients, three in each unit: no reply is of one client"
    for reply in crossed:
        assert set(reply.content) == {"metrics", "statistics"} and len(reply.content["metrics"]["clients"]) == 3
    assert not any(_shares_a_row(reply, setting.store.x) for reply in crossed)


def _shares_a_row(reply, x):
    """Whether some client's row of inputs lies anywhere in a reply."""
    numbers = {float(v) for record in reply.content["statistics"].values() for v in record}
    return any(set(row.tolist()) <= numbers for row in np.asarray(x, np.float64))


def test_an_answer_that_nobody_asked_for_is_refused(setting, monkeypatch):
    monkeypatch.setattr("clients.query.KINDS", {"moments": lambda asked: {"0": Counts((1, 2, 3))}})
    content = wire.query_content(Query("moments", (0,)))
    (reply,) = answer(setting, "query", content, [4])
    assert reply.clients == (4,)
    assert reply.error.reason == "client 4: 0 refused: a Counts, where moments is answered by a Moments"
    monkeypatch.setattr("clients.query.KINDS", {"moments": lambda asked: {"1": Counts((1,))}})
    (reply,) = answer(setting, "query", content, [4])
    assert reply.error.reason == "client 4: 1 refused: nobody asked for it"
