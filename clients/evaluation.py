"""A task on a client's own test part -> merged statistics.

Of the global model, and where devices keep their own models of those too: ``personal_<metric>``, the ``gain`` of the
device's own model over the global one, and how many versions it was behind (``lag``).
"""

from __future__ import annotations

from clients import personal
from clients.setting import Setting
from fl.errors import ClientFailed
from fl.messages import EvaluateTask, EvaluationReport, check_report
from fl.metrics import Mean, Statistics
from fl.models import arrays
from fl.models import evaluate as models
from fl.parameters import Parameters


def evaluate(setting: Setting, task: EvaluateTask, client: int) -> EvaluationReport:
    """One client's report. Raises ClientFailed where its test part is empty."""
    examples = setting.store.partition(client).test
    if not len(examples.y):
        raise ClientFailed(client=client, reason="its test part is empty")
    statistics = measure(setting, task.parameters, client)
    if setting.personal is not None and task.personal:
        own, lag = personal.use(setting, task, client)
        mine = measure(setting, own, client)
        statistics |= {f"personal_{name}": s for name, s in mine.items() if isinstance(s, Mean)}
        statistics["lag"] = Mean(float(lag), 1.0)
    return check_report(
        EvaluationReport(client=client, round=task.round, num_examples=len(examples.y), statistics=statistics)
    )


def measure(setting: Setting, parameters: Parameters, client: int) -> Statistics:
    """Statistics of ``parameters`` on the client's test part."""
    examples = setting.store.partition(client).test
    arrays.load_parameters(setting.module, parameters)
    return models.evaluate(setting.module, examples.x, examples.y, setting.store.signature)
