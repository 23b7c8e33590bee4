"""Messages out, replies in, over any grid. A reply that cannot be read is its sender's fault, and nobody else's.

On a SuperLink a reply is objects of anybody's making. Flower's grid puts them together when it is asked for the replies
that are there; one that cannot be makes it raise, and what it had put together by then is lost, since the SuperLink
gives a reply once. So of any grid but ours replies are pulled one by one, and whatever putting one together raises
becomes the answer of that one message: a Flower Error with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

from flwr.app import Error, Message
from flwr.serverapp import Grid

from fl import wire

POLL_SECONDS = 1.0
"""Between two looks at who has answered. A SuperNode looks for messages every three seconds."""

Progress = Callable[[int, int], None]


class ReportsProgress(Protocol):
    """A grid of ours: it can tell how far a round has come, and its replies were put together by our own processes."""

    progress: Progress | None


def exchanged(
    grid: Grid, messages: Sequence[Message], *, timeout: float | None = None, progress: Progress | None = None
) -> list[Message]:
    """Send ``messages`` and wait for their replies, at most ``timeout`` seconds; what comes later never counts.

    ``progress`` is told how many of how many are there. Raises what keeps the grid from reaching anybody.
    """
    if hasattr(grid, "progress"):
        cast(ReportsProgress, grid).progress = progress
        return list(grid.send_and_receive(messages, timeout=timeout))
    ends = None if timeout is None else time.monotonic() + timeout
    open_messages = _pushed(grid, messages)
    replies: list[Message] = []
    while open_messages and (ends is None or time.monotonic() < ends):
        for message_id, message in list(open_messages.items()):
            reply = _pulled(grid, message_id, message)
            if reply is not None:
                replies.append(reply)
                del open_messages[message_id]
        if progress:
            progress(len(replies), len(messages))
        if open_messages:
            time.sleep(POLL_SECONDS if ends is None else max(0.0, min(POLL_SECONDS, ends - time.monotonic())))
    return replies


def _pushed(grid: Grid, messages: Sequence[Message]) -> dict[str, Message]:
    """Messages by the ids that the grid gave them; it may give one that it could not send None, or nobody any."""
    ids: Iterable[str | None] = grid.push_messages(messages)
    return {message_id: message for message_id, message in zip(ids, messages, strict=False) if message_id}


def _pulled(grid: Grid, message_id: str, message: Message) -> Message | None:
    """The reply to one message, None while there is none."""
    try:
        reply = next(iter(grid.pull_messages([message_id])), None)
        if reply is not None and reply.metadata.reply_to_message_id != message_id:
            return _refused(message, "it says that it answers another message")
    except Exception as error:  # whatever a stranger's bytes make Flower raise
        if _is_of_the_network(error):
            raise
        return _refused(message, f"it cannot be read: {type(error).__name__}: {error}")
    return reply


def _refused(message: Message, why: str) -> Message:
    reason = f"refused by the server: {why}"[: wire.MAX_REASON]
    return Message(Error(code=wire.REFUSED, reason=reason), reply_to=message)


def _is_of_the_network(error: Exception) -> bool:
    import httpx  # Flower's grid speaks by it; only looked at where something has failed

    return isinstance(error, OSError | httpx.HTTPError)
