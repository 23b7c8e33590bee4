"""Where simulated devices find the global model: a registry, looked into a few times a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fl.errors import BadInput

if TYPE_CHECKING:
    from clients.fleet import Assigned
    from fl.registry import Registry
    from fl.serving.on_device import Global


class Source:
    """Where devices find the global model: a registry. ``follow``: an alias or a version; None: the run's newest."""

    def __init__(self, registry: Registry, run_id: str, follow: str | None) -> None:
        self._registry, self._run_id, self._follow = registry, run_id, follow
        self._loaded: dict[str, Global] = {}
        self.newest = -1
        self._version: Global | None = None
        self.look()

    def look(self) -> None:
        """See whether another version is out."""
        latest = self._registry.latest(self._run_id)
        if latest is None:
            return
        self.newest = latest.round
        self._version = self.load(self._follow or latest.hash)

    def load(self, name: str) -> Global:
        """The version of that name, read once. Raises BadInput."""
        from fl.serving.on_device import Global

        found = self._registry.version(name)
        if found.hash not in self._loaded:
            parameters = self._registry.parameters(found)
            self._loaded = dict(list(self._loaded.items())[-8:])
            self._loaded[found.hash] = Global(found.round, found.name, found.hash, parameters)
        return self._loaded[found.hash]

    def known(self, digest: str) -> Global | None:
        """The version of a hash, if it can still be had."""
        try:
            return self.load(digest)
        except BadInput:
            return None

    def assign(self, client: int) -> Assigned | None:
        """Every device answers by the same version."""
        from clients.fleet import Assigned

        return None if self._version is None else Assigned(self._version, self.newest)

    @property
    def over(self) -> bool:
        """Whether the run's rounds are over."""
        return bool(self._registry.run(self._run_id).get("finished"))
