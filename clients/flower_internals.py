"""The few things of Flower that are not public and that a Grid of one's own needs. Pinned to flwr 1.41.

Everything else in the project uses what Flower exports. When Flower is upgraded, this file and tests/clients/
test_grid.py are where it shows.
"""

from __future__ import annotations

import hashlib
import uuid
from itertools import count

from flwr.app import Context, Error, Message, Metadata, RecordDict, UserConfig
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_FIRST_OF_PROCESS, _NUMBERS = uuid.uuid4().hex, count()
"""What message ids are made of: to draw each from the system costs more than the rest of a message."""

__all__ = ["Run", "begin_run", "identify", "server_context", "unavailable"]


def begin_run(run_id: str) -> Run:
    """Tell Flower which run this process serves; its messages read it from the process. One run a process at a time."""
    number = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "little") >> 1
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = number
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    return Run.create_empty(number)


def server_context(run: Run, run_config: UserConfig) -> Context:
    """The Context a ServerApp is called with."""
    return Context(
        run_id=run.run_id, node_id=SUPERLINK_NODE_ID, node_config={}, state=RecordDict(), run_config=run_config
    )


def identify(message: Message) -> str:
    """Give a message an id of its own, as a SuperLink would, and return it."""
    message_id = f"{_FIRST_OF_PROCESS}-{next(_NUMBERS)}"
    message.metadata.__dict__["_message_id"] = message_id
    return message_id


def unavailable(message_id: str, run_id: int) -> Message:
    """What pulling an unknown id, or one already pulled, gives: Flower's error message about it."""
    metadata = Metadata(
        run_id=run_id,
        message_id=uuid.uuid4().hex,
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=message_id,
        group_id="",
        created_at=0.0,
        ttl=0.0,
        message_type="system",
    )
    error = Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason="Error: Message Unavailable")
    return make_message(metadata=metadata, error=error)
