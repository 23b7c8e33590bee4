"""client_fn and NumPyClient, with a state that lasts."""

from flwr.app import Context, MetricRecord
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp


class Client(NumPyClient):
    def __init__(self, context: Context) -> None:
        self.state = context.state
        self.steps = context.run_config["local-steps"]
        self.target = float(context.node_config["partition-id"])

    def fit(self, parameters, config):
        seen = self.state.setdefault("seen", MetricRecord({"fits": 0}))
        seen["fits"] += 1
        (w,) = parameters
        for _ in range(self.steps):
            w = w + 0.5 * (self.target - w) / seen["fits"]
        return [w], 10 + int(self.target), {"fits": seen["fits"]}

    def evaluate(self, parameters, config):
        return float(((parameters[0] - self.target) ** 2).mean()), 10, {"fits": self.state["seen"]["fits"]}


def client_fn(context: Context):
    return Client(context).to_client()


app = ClientApp(client_fn=client_fn)
