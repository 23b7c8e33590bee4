"""Modules that are called as ours are: a package ``server``, namespace packages ``clients`` and ``conf``."""

import importlib.util
import json
import os
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fl.names import NAME

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
    found = {
        "names": [reply.content["answer"]["name"] for reply in replies] + [NAME],
        "experiments": importlib.util.find_spec("flwr") is not None and _there("experiments"),
    }
    Path(os.environ["APP_RESULT"]).write_text(json.dumps(found))


def _there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
