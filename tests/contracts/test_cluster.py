"""A Ray cluster of several nodes gives the bits of one process; the nodes of Ray's own test cluster are processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.run import simulate
from fl.files import read_json


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("num_nodes", [2, 3])
def test_a_cluster_gives_the_bits_of_one_process(num_nodes: int, settings: Callable[..., dict[str, Any]]) -> None:
    from ray.cluster_utils import Cluster

    here = simulate(settings("engine=inprocess", name="here"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(num_nodes - 1):
            cluster.add_node(num_cpus=1)
        spread = ("engine=ray", f"engine.num_actors={num_nodes}", f"engine.address={cluster.address}")
        there = simulate(settings(*spread, name="there"))
    finally:
        cluster.shutdown()
    assert _sha256(there) == _sha256(here)


def _sha256(run_dir: Path) -> str:
    return str(read_json(run_dir / "summary.json")["model_sha256"])
