"""The ClientApp that runs on a SuperNode answers as the simulated clients do."""

from __future__ import annotations

import pytest
from flwr.app import Context, Message, RecordDict

from clients.app import app
from clients.flower_internals import begin_run
from clients.unit import answer
from fl import wire
from fl.messages import Query
from fl.run_config import flatten


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
