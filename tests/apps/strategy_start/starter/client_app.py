import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from starter import task

app = ClientApp()


def _opened(message: Message, context: Context):
    net = task.model()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return net, *task.data(context.node_config["partition-id"])


@app.train()
def train(message: Message, context: Context) -> Message:
    net, x, y = _opened(message, context)
    loss = task.train(net, x, y, learning_rate=context.run_config["learning-rate"], draws=context.run_config["draws"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(x)})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    net, x, y = _opened(message, context)
    with torch.no_grad():
        loss = float(torch.nn.functional.mse_loss(net(x), y))
    metrics = MetricRecord({"eval_loss": loss, "num-examples": len(x)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
