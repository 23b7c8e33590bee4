"""A round that asks for statistics, and trains nothing: over any Grid, with the messages of ``fl/wire.py``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

from flwr.app import Message
from flwr.serverapp import Grid

from fl import wire
from fl.data.analytics import Answers
from fl.messages import Query, QueryReport, check_answer
from server.exchange import exchanged


def asker(grid: Grid, *, timeout: float | None = None) -> Callable[[Query], Answers]:
    """A function that puts a query to every client of ``grid`` and returns what came back, in client order.

    Each call is a round of its own, from 1. What a query does not declare is refused here too: RefusedUpdate.
    """
    rounds = itertools.count(1)

    def ask(query: Query) -> Answers:
        query = replace(query, round=next(rounds))
        content = wire.query_content(query)
        messages = [Message(content, node, "query") for node in grid.get_node_ids()]
        reports: list[QueryReport] = []
        failures: dict[int, str] = {}
        for reply in exchanged(grid, messages, timeout=timeout):
            if reply.has_error():
                failures[wire.sender(reply)] = reply.error.reason or "no reason was given"
            else:
                reports.append(check_answer(wire.read_query_report(reply, round=query.round), query))
        reports.sort(key=lambda report: report.clients)
        answered = {client for report in reports for client in report.clients}
        return Answers(query, reports, failures, late=len(messages) - len(answered) - len(failures))

    return ask
