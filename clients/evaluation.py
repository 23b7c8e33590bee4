"""A task on clients' own test or validation parts -> merged statistics, a report a client.

Of the global model, and where devices keep their own models of those too: ``personal_<metric>``, and how many
versions a device was behind (``lag``). Or of what a client makes of the parameters by training of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from clients import personal
from clients.local import Failure, attempt
from clients.setting import Setting
from clients.training import Trained
from fl.data.dataset import Examples
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
    if task.own is not None:
        for client, trained in personal.train_own(setting, task, task.own, clients):
            yield client, attempt(client, partial(_own_report, setting, task, client, trained))
        return
    keeps_own = setting.personal is not None and task.personal
    own = personal.use(setting, task, clients) if keeps_own else {}
    for client in clients:
        yield client, attempt(client, partial(_report, setting, task, client, own.get(client)))


def _report(
    setting: Setting, task: EvaluateTask, client: int, own: tuple[Parameters, int] | Failure | None
) -> EvaluationReport:
    if isinstance(own, Failure):
        raise own
    statistics = measure(setting, task.parameters, client, task.part)
    if own is not None:
        parameters, lag = own
        mine = measure(setting, parameters, client, task.part)
        statistics |= {f"personal_{name}": s for name, s in mine.items() if isinstance(s, Mean)}
        statistics["lag"] = Mean(float(lag), 1.0)
    return _checked(setting, task, client, statistics)


def _own_report(setting: Setting, task: EvaluateTask, client: int, trained: Trained | Failure) -> EvaluationReport:
    if not isinstance(trained, Trained):
        raise trained
    return _checked(setting, task, client, measure(setting, trained.end, client, task.part))


def _checked(setting: Setting, task: EvaluateTask, client: int, statistics: Statistics) -> EvaluationReport:
    num_examples = len(examples_of(setting, client, task.part))
    return check_report(
        EvaluationReport(client=client, round=task.round, num_examples=num_examples, statistics=statistics)
    )


def measure(setting: Setting, parameters: Parameters, client: int, part: str = "test") -> Statistics:
    """Statistics of ``parameters`` on a part of the client's examples; ClientFailed where that is empty."""
    examples = examples_of(setting, client, part)
    if not len(examples):
        raise ClientFailed(client=client, reason=f"its {part} part is empty")
    arrays.load_parameters(setting.module, parameters)
    return models.evaluate(setting.module, examples.x, examples.y, setting.signature)


def examples_of(setting: Setting, client: int, part: str) -> Examples:
    """The client's test or validation part; ClientFailed for anything else: what it trained on says nothing."""
    partition = setting.store.partition(client)
    if part not in ("test", "validation"):
        raise ClientFailed(client=client, reason=f"asked to be measured on its part {part!r}, not test or validation")
    return partition.test if part == "test" else partition.validation
