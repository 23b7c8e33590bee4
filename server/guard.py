"""What may reach a strategy: every reply is held against what was asked for, before anything is added up.

Our own devices hold themselves to the boundary (fl/messages.py) and this finds nothing. A reply of a real SuperNode is
whatever its owner's code sends, and Flower's strategies would average a NaN, broadcast an array of another shape and
weigh a client by a negative number. A refused reply becomes a Flower Error with the reason, which every strategy sets
aside: the result is that of the other replies, bit for bit. server/objections.py says what is refused of one reply.
Here is what is seen only beside the others: who answers for whom, and which replies are unlike the rest.

A message is settled once. A reply to none of the messages, or to one that is settled, is nobody's and is not counted.
The handle of a simulated client says which it is, and its reply may claim no other; a unit's sum may also answer for
clients whose messages nobody answered. The handle of a real SuperNode is a random number: it says itself which client
it is and stays that one (``known``, node -> client). Where two claim one client, the one known for it is believed, or
else neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fl import wire
from fl.errors import RefusedUpdate
from fl.messages import EvaluationReport
from server.exchange import exchanged
from server.objections import Declared, layout, of_kind, rows_of, shapes, to_parameters, to_report, to_sum
from server.replies import reports

__all__ = ["Declared", "ask_for_reports", "guarded", "sound_reports"]

SUPERLINK = 1
"""The node in whose name a SuperLink says that a message was lost."""


@dataclass(frozen=True)
class _Answer:
    """``reply`` to ``message``: whom it answers for, as far as that is known; why it is refused, "" if it is not."""

    message: Message
    reply: Message
    clients: tuple[int, ...] = ()
    why: str = ""

    @property
    def node(self) -> int:
        return self.message.metadata.dst_node_id

    @property
    def is_sound(self) -> bool:
        return not self.why and self.reply.has_content()


def guarded(
    messages: Sequence[Message],
    replies: Iterable[Message],
    declared: Declared,
    *,
    known: dict[int, int] | None = None,
) -> list[Message]:
    """``replies`` to training ``messages``, by client; an Error for every client whose reply may not be aggregated."""
    known = {} if known is None else known
    contents = {id(message.content): message.content for message in messages}.values()
    summed = any(wire.reply_asked_for(content) == "sum" for content in contents)
    check = partial(to_sum if summed else to_parameters, declared=declared)
    answers = _answers(messages, replies, check, known, summed=summed)
    if not summed and answers:
        ours = layout(wire.reply_like(messages[0].content, whole=declared.grown is not None))
        answers = _alike(answers, ours)
    answers = _one_a_client(answers, known)
    return _settled(messages, answers, known, summed=summed)


def sound_reports(
    messages: Sequence[Message], replies: Iterable[Message], *, averaged: bool, known: dict[int, int] | None = None
) -> tuple[list[Message], list[dict[str, Any]]]:
    """Evaluation replies that may be merged, by client, and the others as {"client", "reason"}.

    ``averaged``: a stock strategy averages their metrics, which must be alike for that.
    """
    known = {} if known is None else known
    answers = _answers(messages, replies, partial(to_report, averaged=averaged), known, summed=False)
    answers = _of_usual_shapes(_alike(answers) if averaged else answers)
    answers = sorted(_one_a_client(answers, known), key=partial(_place, known=known))
    unsound = [
        {"client": _client(a.node, known), "reason": a.why[: wire.MAX_REASON]} for a in answers if a.why
    ]  # fmt: skip
    return [a.reply for a in answers if a.is_sound], unsound


def ask_for_reports(grid: Grid, messages: Sequence[Message], *, round: int) -> list[EvaluationReport]:
    """Send ``messages`` and wait for the reports, outside the rounds: the sound ones, by client."""
    sound, _ = sound_reports(messages, exchanged(grid, messages), averaged=False)
    return reports(sound, round=round)


# --- one by one -------------------------------------------------------------------------------------------------


def _answers(
    messages: Sequence[Message],
    replies: Iterable[Message],
    check: Callable[[RecordDict], str],
    known: Mapping[int, int],
    *,
    summed: bool,
) -> list[_Answer]:
    """One answer a message that has any, in the order of the messages, each held against what was asked for."""
    asked = {message.metadata.message_id: message for message in messages}
    first: dict[str, Message] = {}
    for reply in replies:
        to = reply.metadata.reply_to_message_id
        if to in asked and (
            to not in first or (_is_its_own(reply, asked[to]) and not _is_its_own(first[to], asked[to]))
        ):
            first[to] = reply
    silent = {message.metadata.dst_node_id for number, message in asked.items() if number not in first}
    found = []
    for number, reply in first.items():
        answer = _Answer(asked[number], reply)
        if not _is_its_own(reply, answer.message):
            answer = replace(answer, why=f"node {reply.metadata.src_node_id} answered in its place")
        elif reply.has_content():
            answer = _checked(answer, check, silent, known, summed=summed)
        found.append(answer)
    return found


def _is_its_own(reply: Message, message: Message) -> bool:
    source = reply.metadata.src_node_id
    return source == message.metadata.dst_node_id or (source == SUPERLINK and reply.has_error())


def _checked(
    answer: _Answer, check: Callable[[RecordDict], str], silent: set[int], known: Mapping[int, int], *, summed: bool
) -> _Answer:
    content = answer.reply.content
    try:
        clients = _claimed(content, summed=summed)
        why = _impostor(answer.node, clients, silent, known)
        # Whom it answers for is only believed of one who claims nobody else.
        answer = replace(answer, clients=() if why else clients or (_client(answer.node, known),))
    except Exception as error:  # noqa: BLE001  a record of anybody's making, see below
        why = _said(error)
    try:
        return replace(answer, why=check(content) or why)
    except Exception as error:  # noqa: BLE001  whatever a reply makes its readers raise is what is wrong with it
        return replace(answer, why=_said(error))


def _said(error: Exception) -> str:
    if isinstance(error, RefusedUpdate):
        return f"{error.what}: {error.why}"
    text = str(error) or "no reason given"
    return text if type(error) is ValueError else f"it cannot be read: {type(error).__name__}: {text}"


def _claimed(content: RecordDict, *, summed: bool) -> tuple[int, ...]:
    """The clients that a reply says it is from, none where it does not say. Raises ValueError for what is no client."""
    if summed:
        named: list[Any] = [row[wire.CLIENT] for row in rows_of(content)]
    else:
        metrics = of_kind(content, MetricRecord).values()
        named = [record[wire.CLIENT] for record in metrics if wire.CLIENT in record]
    for client in named:
        if isinstance(client, list) or not 0 <= client < wire.MAX_CLIENTS or client != int(client):
            raise ValueError(f"{wire.CLIENT} is {client}, allowed: a whole number from 0, below {wire.MAX_CLIENTS}")
    return tuple(int(client) for client in named)


def _impostor(node: int, clients: Sequence[int], silent: set[int], known: Mapping[int, int]) -> str:
    """Against a reply of ``node`` that claims to be from ``clients``."""
    if len(set(clients)) < len(clients):
        return "it answers for a client twice"
    if not wire.is_simulated(node):
        if len(clients) > 1:
            return f"it answers for {len(clients)} clients"
        if clients and known.get(node, clients[0]) != clients[0]:
            return f"it answers as client {clients[0]}, and was client {known[node]} before"
        return ""
    client = wire.client_of(node)
    if clients and client not in clients:
        return f"it answers in the name of client {clients[0]}"
    others = [other for other in clients if other != client and wire.node_of(other) not in silent]
    return f"it answers for client {others[0]}, who was not asked or answered otherwise" if others else ""


# --- beside the others ------------------------------------------------------------------------------------------


def _alike(answers: list[_Answer], ours: tuple[Any, ...] | None = None) -> list[_Answer]:
    """Refuse what is laid out unlike the rest: Flower would not aggregate any of them.

    Simulated devices answer as ``ours`` do, where that is known; real ones may run another app, and most are believed.
    """
    layouts = {id(a): layout(a.reply.content) for a in answers if a.is_sound}
    if ours is not None and all(wire.is_simulated(a.node) for a in answers):
        expected: tuple[Any, ...] | None = ours
    else:
        expected = _most_common(layouts.values(), ours)
    return [
        replace(a, why=_difference(layouts[id(a)], expected)) if layouts.get(id(a), expected) != expected else a
        for a in answers
    ]


def _difference(found: tuple[Any, ...], expected: tuple[Any, ...] | None) -> str:
    assert expected is not None
    if found[0] != expected[0]:
        return f"array records {found[0]}, expected {expected[0]}"
    missing, more = set(expected[1]) - set(found[1]), set(found[1]) - set(expected[1])
    record, name, size = min(more or missing)
    held = "numbers" if size >= 0 else "a number"
    return f"metric {name!r} of record {record!r} is {f'{held} and was not expected' if more else 'missing'}"


def _of_usual_shapes(answers: list[_Answer]) -> list[_Answer]:
    """Refuse reports with a statistic that does not merge with most of its name."""
    found = {id(a): shapes(a.reply.content) for a in answers if a.is_sound}
    by_name: dict[str, list[tuple[Any, ...]]] = {}
    for mine in found.values():
        for name, shape in mine.items():
            by_name.setdefault(name, []).append(shape)
    usual = {name: _most_common(some) for name, some in by_name.items()}
    out = []
    for a in answers:
        odd = next((n for n, shape in sorted(found.get(id(a), {}).items()) if shape != usual[n]), None)
        out.append(a if odd is None else replace(a, why=f"statistic {odd!r} is of another kind or size than most"))
    return out


def _most_common(found: Iterable[tuple[Any, ...]], ours: tuple[Any, ...] | None = None) -> tuple[Any, ...] | None:
    """Of equally common ones ``ours``, or else the first in order, whoever answered first."""
    counts = Counter(found)
    return min(counts, key=lambda one: (-counts[one], one != ours, one)) if counts else None


def _one_a_client(answers: list[_Answer], known: dict[int, int]) -> list[_Answer]:
    """Refuse those who claim one client between them, but the one known for it; remember who is who."""
    claims = Counter(client for a in answers if a.is_sound for client in a.clients)
    out = []
    for a in answers:
        if not a.is_sound:
            out.append(a)
            continue
        rivals = [client for client in a.clients if claims[client] > 1]
        if rivals and not (known.get(a.node) == rivals[0] and _nodes_of(rivals[0], answers, known) == 1):
            a = replace(a, why=f"another answers for client {rivals[0]} too")
        elif not wire.is_simulated(a.node) and a.clients != (wire.client_of(a.node),):
            known[a.node] = a.clients[0]
        out.append(a)
    return out


def _nodes_of(client: int, answers: Sequence[_Answer], known: Mapping[int, int]) -> int:
    return sum(a.is_sound and client in a.clients and known.get(a.node) == client for a in answers)


# --- the outcome ------------------------------------------------------------------------------------------------


def _settled(
    messages: Sequence[Message], answers: Sequence[_Answer], known: Mapping[int, int], *, summed: bool
) -> list[Message]:
    """Sound replies and errors, by client; a refused sum is an error for each client it answers for."""
    by_node = {message.metadata.dst_node_id: message for message in messages}
    open_nodes = by_node.keys() - {a.node for a in answers}
    open_nodes -= {wire.node_of(c) for a in answers if a.is_sound for c in a.clients}
    out: list[tuple[int, Message]] = []
    for a in answers:
        if not a.why:
            error = a.reply.has_error() and a.reply.metadata.src_node_id != a.node
            reply = Message(a.reply.error, reply_to=a.message) if error else a.reply
            out.append((_place(a, known), reply))
            continue
        covered = [a.node]
        if summed and wire.is_simulated(a.node) and open_nodes:
            covered += sorted(_covered(a, open_nodes, answers))
            open_nodes -= set(covered)
        for node in covered:
            client = _client(node, known)
            reason = f"client {client}: refused by the server: {a.why}"[: wire.MAX_REASON]
            error_reply = Message(Error(code=wire.REFUSED, reason=reason), reply_to=by_node[node])
            out.append((client, error_reply))
    return [reply for _, reply in sorted(out, key=lambda placed: placed[0])]


def _covered(answer: _Answer, open_nodes: set[int], answers: Sequence[_Answer]) -> set[int]:
    """Whom else a refused sum answers for. One that does not say so, or not the truth, is taken for that of those up to
    the next who answered: units are cut from the cohort in order.
    """
    if answer.clients:
        return open_nodes & {wire.node_of(client) for client in answer.clients}
    ends = min((a.node for a in answers if a.node > answer.node), default=max(open_nodes) + 1)
    return {node for node in open_nodes if answer.node < node < ends}


def _client(node: int, known: Mapping[int, int]) -> int:
    return known.get(node, wire.client_of(node))


def _place(answer: _Answer, known: Mapping[int, int]) -> int:
    return answer.clients[0] if answer.clients and answer.is_sound else _client(answer.node, known)
