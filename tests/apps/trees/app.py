"""Bagged trees, which grow round by round; client 2 may blow its own up with blanks, or raise."""

import numpy as np
import xgboost as xgb
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedXgbBagging

PARAMETERS = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1, "seed": 1}

server_app = ServerApp()
client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    partition = context.node_config["partition-id"]
    x = np.random.default_rng(partition).normal(size=(40, 3))
    data = xgb.DMatrix(x, label=x[:, 0] + x[:, 1] * partition > 0)
    model = message.content["arrays"]["0"].numpy().tobytes()
    booster = xgb.Booster(PARAMETERS)
    if model:
        booster.load_model(bytearray(model))
        booster.update(data, booster.num_boosted_rounds())
        booster = booster[booster.num_boosted_rounds() - 1 :]
    else:
        booster = xgb.train(PARAMETERS, data, num_boost_round=1)
    grown = bytes(booster.save_raw("json"))
    odd = partition == 2
    if odd and context.run_config["raises"]:
        raise ValueError("no")
    grown += b" " * (context.run_config["padding"] if odd else 0)
    content = {"arrays": ArrayRecord([np.frombuffer(grown, np.uint8)]), "metrics": MetricRecord({"num-examples": 40})}
    return Message(RecordDict(content), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    FedXgbBagging(fraction_evaluate=0.0).start(grid, ArrayRecord([np.zeros(0, np.uint8)]), num_rounds=3)
