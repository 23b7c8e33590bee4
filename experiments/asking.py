"""Clients that answer queries in this process: what is fitted to their columns, and what stages find out of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fl.data.analytics import Ask
    from fl.signature import Signature

UNIT = 64
"""Clients a work unit of a query, whatever the engine: sums of floats have the same bits in the same units."""


def ask_here(partitions: Path, *, signature: Signature, num_clients: int, seed: int, but: Collection[int] = ()) -> Ask:
    """A function that asks the clients of ``partitions``, all ``but`` some, in this process, which wrote them, whatever
    engine trains.
    """
    from clients.grid import UnitGrid
    from clients.inprocess import InProcess
    from clients.setting import query_setting
    from server.policies import AvailableGrid, all_but
    from server.query import asker

    setting = query_setting(partitions=partitions, signature=signature, seed=int(seed))
    grid = UnitGrid(run_id="0", num_clients=num_clients, unit_size=UNIT, executor=InProcess(setting))
    return asker(AvailableGrid(grid, all_but(but)(1, list(grid.get_node_ids()))) if but else grid)
