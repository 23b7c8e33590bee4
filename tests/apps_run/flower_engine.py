"""Run an app under Flower's own engine: ``python flower_engine.py FOLDER NUM_CLIENTS "k=v k2=v2"``. Not a test."""

import secrets
import sys
from pathlib import Path


def main(folder: str, num_clients: str, overrides: str) -> None:
    from flwr.app import Context, RecordDict
    from flwr.common.config import get_fused_config_from_dir, get_project_config, parse_config_args
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supercore.telemetry import EventType

    components = get_project_config(folder)["tool"]["flwr"]["app"]["components"]
    given = parse_config_args([overrides]) if overrides else {}
    run = Run.create_empty(run_id=secrets.randbits(63))
    run.primary_task_id, run.federation_id, run.override_config = 1, NOOP_FEDERATION_ID, given
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run.run_id, 1
    config = get_fused_config_from_dir(Path(folder), given)
    context = Context(run_id=run.run_id, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    _run_simulation(
        num_supernodes=int(num_clients),
        exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
        server_app_attr=components["serverapp"],
        client_app_attr=components["clientapp"],
        server_app_context=context,
        app_dir=folder,
        run=run,
        is_app=True,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": 2, "include_dashboard": False},
        },
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
