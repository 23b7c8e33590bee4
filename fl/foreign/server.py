"""The ServerApp's process: loads the app and runs it, once, on a grid whose other end is the driver."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from . import frames, process
from .frames import Frame


def main(driver: socket.socket) -> None:
    """Load the app, say so, run it when told to, and say how it ended."""
    setting, _ = frames.receive(driver)
    process.begin(setting["folder"], parent=setting["parent"])
    seeds = process.seeds()
    with seeds.process_wide(setting["seed"], purpose="app/server"):
        try:
            from flwr.serverapp import ServerApp

            from . import legacy, means, records

            legacy.installed()
            means.installed()
            records.installed()
            process.identify(setting["run_id"], 1)
            app = process.load_app(setting["serverapp"], setting["folder"], ServerApp)
        except BaseException:  # noqa: BLE001  the driver says what is wrong with the app, in its own words
            frames.send(driver, {"op": "failed", "trace": traceback.format_exc()})
            os._exit(1)
        process.loaded()
        frames.send(driver, {"op": "ready"})
        try:
            ended = _run(app, setting, driver, frames.receive(driver))
        except EOFError:
            os._exit(1)
    sys.stdout.flush()
    sys.stderr.flush()
    frames.send(driver, ended)


def _run(app: Any, setting: Mapping[str, Any], driver: socket.socket, start: Frame) -> dict[str, Any]:
    from flwr.app import Context, RecordDict

    from .grid import AppGrid
    from .rounds import Recorder, arrays_of, installed

    header, buffers = start
    grid = AppGrid(
        driver, run_id=setting["run_id"], num_clients=setting["num_clients"], first_node=setting["first_node"]
    )
    resume = None
    if header["resume"] is not None:
        kept = pickle.loads(buffers[0])  # noqa: S301  from the app to itself
        arrays = arrays_of(header["resume"]["arrays"], buffers[1:])
        resume = {"round": header["resume"]["round"], "kept": kept, "arrays": arrays}
    installed(Recorder(grid, process.seeds(), resume))
    grid.listen()
    context = Context(
        run_id=setting["run_id"], node_id=1, node_config={}, state=RecordDict(), run_config=setting["run_config"]
    )
    try:
        app(grid=grid, context=context)
    except SystemExit as stop:
        if stop.code in (None, 0):
            return {"op": "done"}
        return {"op": "failed", "trace": traceback.format_exc(), "error": f"the app ended with exit status {stop.code}"}
    except Exception as error:  # noqa: BLE001  the app's own
        return {"op": "failed", "trace": traceback.format_exc(), "error": f"{type(error).__name__}: {error}"}
    return {"op": "done"}
