"""The SecAgg+ workflow around a legacy strategy."""

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid, ServerApp


class Client(NumPyClient):
    def __init__(self, partition: int) -> None:
        self.partition = partition

    def fit(self, parameters, config):
        return [parameters[0] + 0.1 * self.partition], 10, {}


def padding(message: Message, context: Context, call_next):
    """Client 4 blows up its masked vector, if it is told to."""
    masks = "collect_masked_vectors" in [value for record in message.content.values() for value in record.values()]
    reply = call_next(message, context)
    if masks and context.run_config["padding"] and context.node_config["partition-id"] == 4:
        reply.content["padding"] = ConfigRecord({"padding": bytes(context.run_config["padding"])})
    return reply


client_app = ClientApp(
    client_fn=lambda context: Client(context.node_config["partition-id"]).to_client(), mods=[padding, secaggplus_mod]
)
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(
        initial_parameters=ndarrays_to_parameters([np.zeros(5)]),
        fraction_evaluate=0.0,
        min_fit_clients=5,
        min_available_clients=5,
    )
    legacy = LegacyContext(
        context=context, config=ServerConfig(num_rounds=context.run_config["num-server-rounds"]), strategy=strategy
    )
    workflow = DefaultWorkflow(fit_workflow=SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2))
    workflow(grid, legacy)
    (w,) = parameters_to_ndarrays(legacy.strategy.initial_parameters or legacy_parameters(legacy))
    Path(os.environ["APP_RESULT"]).write_text(json.dumps({"arrays": w.tolist()}))


def legacy_parameters(legacy):
    """Where the workflow leaves the model."""
    from flwr.compat.common.recorddict_compat import arrayrecord_to_parameters

    return arrayrecord_to_parameters(legacy.state.array_records["parameters"], keep_input=True)
