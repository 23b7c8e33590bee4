"""The ClientApp that runs on a SuperNode answers as the simulated clients do."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from clients.app import app
from clients.flower_internals import begin_run
from clients.machine import Home, Machine
from clients.own_data import take_in
from clients.received import Received
from clients.unit import answer
from fl import wire
from fl.data.store import open_store
from fl.messages import Query
from fl.parameters import sha256
from fl.run_config import flatten
from fl.serving.on_device import Global


@pytest.mark.parametrize("client", [0, 3])
def test_a_supernode_answers_a_query_as_a_simulated_client_does(partitions, devices, tmp_path, client):
    begin_run("1")
    settings, folder = partitions
    node = {"partition-id": client, "partitions": str(folder), "states": str(tmp_path)}
    flat = flatten({name: value for name, value in settings.items() if name not in ("run_dir", "registry_dir")})
    context = Context(run_id=1, node_id=5, node_config=node, state=RecordDict(), run_config=flat)
    content = wire.query_content(Query("moments", (0, 2)))
    told = wire.read_query_report(app(Message(content, 5, "query"), context), round=1)
    (reply,) = answer(devices(), "query", content, [client])
    simulated = wire.read_query_report(Message(reply.content, 5, "query"), round=1)
    assert told == simulated and told.clients == (client,)


def test_a_device_answers_by_its_own_model_of_what_its_supernode_was_sent(partitions, start, tmp_path):
    begin_run("1")
    settings, folder = partitions
    home, store = Home(tmp_path / "home"), open_store(folder)
    np.savez(tmp_path / "mine.npz", x=store.partition(1).train.x, y=store.partition(1).train.y)
    take_in(tmp_path / "mine.npz", home.partitions, client=1, num_clients=6, signature=store.signature, label="label")
    machine = Machine(
        home,
        client=1,
        signature=store.signature,
        built_in=Received(Global(0, "run:0", sha256(start), start), settings),
    )
    folders = {"partitions": home.partitions, "states": home.states, "received": home.received}
    node = {"partition-id": 1, **{name: str(path) for name, path in folders.items()}}
    flat = flatten({name: value for name, value in settings.items() if name not in ("run_dir", "registry_dir")})
    context = Context(run_id=77, node_id=5, node_config=node, state=RecordDict(), run_config=flat)
    newer = {name: value + np.float32(0.1) for name, value in start.items()}
    task = wire.train_content(wire.array_record(newer), {}, round=3, version=2)
    assert not app(Message(task, 5, "train"), context).has_error()
    assert machine.catch_up()
    question = {"rows": store.partition(1).test.x[:1].tolist()}
    told = machine.answer(question)
    assert (told["version"], told["model_sha256"], told["personal"]) == ("77:2", sha256(newer), True)
    newest = wire.evaluate_content(wire.array_record(start), round=3)
    assert not app(Message(newest, 5, "evaluate"), context).has_error()
    assert machine.catch_up() and machine.answer(question)["version"] == "77:3"
