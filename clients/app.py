"""The Flower ClientApp: one device. It runs unchanged on a real SuperNode.

A SuperNode is told where its private partition lies by its node config, and never by the server:

    flower-supernode --node-config 'partition-id=0 num-partitions=2 partitions="devices/partitions"'

``states`` names the folder for what the device keeps between rounds, by run; by default it is beside the partitions.
``received`` names one for the newest global model, for whoever answers the device's user (clients/machine.py).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients import received
from clients.setting import Setting, open_setting
from clients.unit import answer
from fl.errors import BadInput
from fl.run_config import unflatten

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a training task."""
    return _answer("train", message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer an evaluation task."""
    return _answer("evaluate", message, context)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Answer a query."""
    return _answer("query", message, context)


def _answer(kind: str, message: Message, context: Context) -> Message:
    client = int(context.node_config["partition-id"])
    setting = _setting_of(context)
    if "received" in context.node_config:
        folder = Path(str(context.node_config["received"]))
        settings = unflatten(dict(context.run_config))
        received.note(folder, kind, message.content, run=_run(context), settings=settings)
    reply = answer(setting, kind, message.content, [client])[0]
    if reply.error is not None:
        return Message(reply.error, reply_to=message)
    assert reply.content is not None
    return Message(reply.content, reply_to=message)


def _setting_of(context: Context) -> Setting:
    if "partitions" not in context.node_config:
        raise BadInput(key="node-config partitions", got=None, allowed="the folder of a partition store on this device")
    partitions = str(context.node_config["partitions"])
    states = Path(str(context.node_config.get("states", Path(partitions).parent / "states")))
    return _open(tuple(sorted(context.run_config.items())), partitions, str(states / _run(context)))


def _run(context: Context) -> str:
    return str(context.run_config.get("run.id") or context.run_id)


@lru_cache(maxsize=1)
def _open(run_config: tuple[tuple[str, object], ...], partitions: str, states: str) -> Setting:
    return open_setting(unflatten(dict(run_config)), partitions=Path(partitions), states=Path(states))
