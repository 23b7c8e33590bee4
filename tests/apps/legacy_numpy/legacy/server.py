"""server_fn with a legacy strategy."""

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp


class Kept(FedAvg):
    def aggregate_evaluate(self, server_round, results, failures):
        found = super().aggregate_evaluate(server_round, results, failures)
        losses.append(found[0])
        Path(os.environ["APP_RESULT"]).write_text(json.dumps({"losses": losses, "arrays": arrays}))
        return found

    def aggregate_fit(self, server_round, results, failures):
        found = super().aggregate_fit(server_round, results, failures)
        arrays.append(parameters_to_ndarrays(found[0])[0].tolist())
        return found


losses, arrays = [], []


def server_fn(context: Context) -> ServerAppComponents:
    strategy = Kept(initial_parameters=ndarrays_to_parameters([np.zeros(4)]), min_available_clients=5)
    config = ServerConfig(num_rounds=context.run_config["num-server-rounds"])
    return ServerAppComponents(strategy=strategy, config=config)


app = ServerApp(server_fn=server_fn)
