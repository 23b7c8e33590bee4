"""Replies that Flower itself cannot put together, as a stranger's SuperNode may send them: a run goes on without them.

A SuperLink hands out a reply as objects, and Flower's grid inflates those of every reply that is there in one go. Here
they go through Flower's own deflating and inflating between our devices and the server; tests/deploy has a SuperLink.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from experiments import engine as engines
from experiments.run import simulate
from fl import wire
from fl.files import read_json
from server import exchange

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]
Contents = dict[str, bytes]

LIAR = 2


class Link(Grid):
    """As Flower's grid behind a SuperLink: a reply is given once, and one that is broken makes the whole pull raise."""

    def __init__(self, inner: Any, send: Callable[[Message], Message]) -> None:
        self.inner, self.send = inner, send

    def set_run(self, run: Any) -> None:
        self.inner.set_run(run)

    @property
    def run(self) -> Any:
        return self.inner.run

    def create_message(self, *content: Any, **how: Any) -> Message:
        return self.inner.create_message(*content, **how)

    def get_node_ids(self) -> Iterable[int]:
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.send(reply) for reply in self.inner.pull_messages(message_ids)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise AssertionError("of all replies at once, the good ones are lost with the bad one")


def arrived(reply: Message, change: Callable[[str, Contents], None] = lambda root, contents: None) -> Message:
    """A reply after its way through the SuperLink."""
    objects = get_all_nested_objects(reply)
    contents = {number: part.deflate() for number, part in objects.items()}
    change(reply.object_id, contents)
    return inflate_object_from_contents(reply.object_id, contents)  # type: ignore[return-value]


def kind_of(content: bytes) -> str:
    return content.split(b" ")[0].decode()


def replaced(kind: str, body: bytes) -> Callable[[str, Contents], None]:
    """Objects of one kind have another body."""

    def change(root: str, contents: Contents) -> None:
        for number, content in contents.items():
            if kind_of(content) == kind:
                contents[number] = b"%s  %d\0%s" % (kind.encode(), len(body), body)

    return change


def missing(root: str, contents: Contents) -> None:
    del contents[next(number for number, content in contents.items() if kind_of(content) == "MetricRecord")]


def unknown(root: str, contents: Contents) -> None:
    contents[root] = contents[root].replace(b"Message", b"Missive", 1)


def no_message(root: str, contents: Contents) -> None:
    contents[root] = next(content for content in contents.values() if kind_of(content) == "RecordDict")


def reply_to_another(reply: Message) -> Message:
    reply.metadata.__dict__["_reply_to_message_id"] = "another"
    return reply


LIES: dict[str, tuple[Callable[[Message], Message], str]] = {
    "no metrics in a metric record": (lambda r: arrived(r, replaced("MetricRecord", b"\xff\xfe")), "cannot be read"),
    "no array": (lambda r: arrived(r, replaced("Array", b"{")), "cannot be read"),
    "an object is missing": (lambda r: arrived(r, missing), "cannot be read: KeyError"),
    "an object of no kind": (lambda r: arrived(r, unknown), "cannot be read: KeyError: 'Missive'"),
    "no message": (lambda r: arrived(r, no_message), "cannot be read"),
    "to another": (reply_to_another, "it says that it answers another message"),
}


@pytest.fixture
def linked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A run behind a link, at which one client's replies of a kind pass through ``change``."""
    open_grid = engines.open_grid
    monkeypatch.setattr(exchange, "POLL_SECONDS", 0.01)

    def linked(change: Callable[[Message], Message], *overrides: str, kind: str = "train", name: str) -> Path:
        def send(reply: Message) -> Message:
            lies = wire.client_of(reply.metadata.src_node_id) == LIAR and reply.metadata.message_type == kind
            return change(reply) if lies else arrived(reply)

        @contextmanager
        def between(*arguments: Any, **how: Any) -> Iterator[Grid]:
            with open_grid(*arguments, **how) as inner:
                yield Link(inner, send)

        with monkeypatch.context() as patched:
            patched.setattr(engines, "open_grid", between)
            return simulate(settings("engine.unit_size=1", "cohort_size=6", *overrides, name=name))

    return linked


def absent(reply: Message) -> Message:
    return make_message(metadata=reply.metadata, error=Error(code=2, reason="gone"))


def but_for_the_liar(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("failed", "refused", "clients")} for line in lines]


@pytest.mark.parametrize("strategy", ["own", pytest.param("fedmedian", marks=pytest.mark.slow)])
def test_replies_that_cannot_be_put_together_are_refused_and_the_rest_add_up_as_without_them(
    strategy: str, linked: Callable[..., Path], told: Told
) -> None:
    without = linked(absent, f"strategy={strategy}", name="without")
    for lie, (change, why) in LIES.items():
        lied = linked(change, f"strategy={strategy}", name=lie.replace(" ", "_"))
        for line in told(lied)[1:]:
            assert line["clients"] == {"asked": 6, "answered": 5, "failed": 0, "refused": 1, "late": 0}, lie
            (refused,) = line["refused"]
            assert refused["client"] == LIAR and why in refused["reason"], lie
        assert but_for_the_liar(told(lied)) == but_for_the_liar(told(without)), lie
        assert read_json(lied / "summary.json")["status"] == "finished"


def test_evaluations_that_cannot_be_put_together_leave_the_others(linked: Callable[..., Path], told: Told) -> None:
    change, _ = LIES["no metrics in a metric record"]
    lied, without = (linked(c, kind="evaluate", name=name) for c, name in ((change, "lied"), (absent, "without")))
    assert told(lied) == told(without)
    assert told(lied)[-1]["client_metrics"]


def test_what_keeps_the_grid_from_reaching_anybody_is_nobodys_reply(linked: Callable[..., Path]) -> None:
    def down(reply: Message) -> Message:
        raise httpx.ConnectError("the SuperLink is gone")

    with pytest.raises(httpx.ConnectError, match="the SuperLink is gone"):
        linked(down, name="down")
