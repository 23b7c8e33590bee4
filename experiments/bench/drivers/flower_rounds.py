"""The Flower app under Flower's own simulation engine."""

from __future__ import annotations

import logging

from flwr.simulation import run_simulation

from experiments.bench.drivers import flower_app, record


def main() -> None:
    """Run the task of this process."""
    logging.disable(logging.INFO)
    task = record.read_task()
    run_simulation(
        server_app=flower_app.server,
        client_app=flower_app.idle if task.model == record.NOTHING else flower_app.client,
        num_supernodes=task.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": task.processes, "include_dashboard": False},
        },
    )


if __name__ == "__main__":
    main()
