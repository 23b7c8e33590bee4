"""Flower's legacy server with one order of results: it asks its clients in threads and takes them as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flwr.server import server as legacy


def installed() -> None:
    """Let the legacy server hand results to its strategy in the order in which it asked the clients."""
    for name in ("fit_clients", "evaluate_clients"):
        setattr(legacy, name, _ordered(getattr(legacy, name)))


def _ordered(ask: Callable[..., tuple[list[Any], list[Any]]]) -> Callable[..., tuple[list[Any], list[Any]]]:
    def ordered(client_instructions: Sequence[Any], *rest: Any, **more: Any) -> tuple[list[Any], list[Any]]:
        results, failures = ask(client_instructions, *rest, **more)
        place = {client.cid: number for number, (client, _) in enumerate(client_instructions)}
        return sorted(results, key=lambda result: place[result[0].cid]), failures

    return ordered
