"""A task on clients' own test parts -> merged statistics, a report a client.

Of the global model, and where devices keep their own models of those too: ``personal_<metric>``, and how many
versions a device was behind (``lag``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from clients import personal
from clients.local import Failure, attempt
from clients.setting import Setting
from fl.errors import ClientFailed
from fl.messages import EvaluateTask, EvaluationReport, check_report
from fl.metrics import Mean, Statistics
from fl.models import arrays
from fl.models import evaluate as models
from fl.parameters import Parameters


def evaluate_clients(
    setting: Setting, task: EvaluateTask, clients: Sequence[int]
) -> Iterator[tuple[int, EvaluationReport | Failure]]:
    """Each client with its report, or with why it has none, in the order given."""
    keeps_own = setting.personal is not None and task.personal
    own = personal.use(setting, task, clients) if keeps_own else {}
    for client in clients:
        yield client, attempt(client, partial(_report, setting, task, client, own.get(client)))


def _report(
    setting: Setting, task: EvaluateTask, client: int, own: tuple[Parameters, int] | Failure | None
) -> EvaluationReport:
    num_examples = len(setting.store.partition(client).test.y)
    if not num_examples:
        raise ClientFailed(client=client, reason="its test part is empty")
    if isinstance(own, Failure):
        raise own
    statistics = measure(setting, task.parameters, client)
    if own is not None:
        parameters, lag = own
        mine = measure(setting, parameters, client)
        statistics |= {f"personal_{name}": s for name, s in mine.items() if isinstance(s, Mean)}
        statistics["lag"] = Mean(float(lag), 1.0)
    return check_report(
        EvaluationReport(client=client, round=task.round, num_examples=num_examples, statistics=statistics)
    )


def measure(setting: Setting, parameters: Parameters, client: int) -> Statistics:
    """Statistics of ``parameters`` on the client's test part."""
    examples = setting.store.partition(client).test
    arrays.load_parameters(setting.module, parameters)
    return models.evaluate(setting.module, examples.x, examples.y, setting.signature)
