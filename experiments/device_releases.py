"""Releases over simulated devices: which version each of them is to answer by, and who leads the release.

An order waits in the registry until devices that follow its alias are served (`fl devices serve --follow ALIAS`). The
process that serves them leads it, by query rounds, unless another one does; when it is started again it goes on where
the state on disk stands.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from fl.messages import release_number
from fl.registry import releases
from fl.releases import CHAMPION, Policy, Release, Routing, State, assigned

if TYPE_CHECKING:
    from pathlib import Path

    from clients.fleet import Assigned
    from experiments.device_versions import Source
    from fl.data.analytics import Ask
    from fl.decisions import Decision
    from fl.serving.on_device import Global
    from server.releases import Leader

TARGET = "devices"


class Orders:
    """The open release of ``alias`` over devices, if there is one; a context, which gives up the lead at its end.

    policy_for   the policy that a release orders (fl.deployment.policies)
    told         is called with the id of the release and each Decision
    """

    def __init__(
        self,
        source: Source,
        folder: Path,
        *,
        alias: str,
        ask: Ask,
        policy_for: Callable[[Release], Policy],
        told: Callable[[str, Decision], None] = lambda release, decision: None,
        **leading: Any,
    ) -> None:
        self._source, self._folder, self._alias, self._ask = source, folder, alias, ask
        self._policy_for, self._told, self._leading = policy_for, told, leading
        self._held = ExitStack()
        self._leader: Leader | None = None
        self._release: Release | None = None
        self._policy: Policy | None = None
        self._state: State = {}
        self._routing: Routing | None = None
        self._versions: dict[str, Global] = {}

    def __enter__(self) -> Orders:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def look(self) -> None:
        """See what is ordered and where it stands; whoever leads takes one step."""
        self._source.look()
        opened = [r for r in releases.open_releases(self._folder) if (r.target, r.serves) == (TARGET, self._alias)]
        if self._release is not None and self._release not in opened:
            self._close()
        if self._release is None and opened:
            self._open(opened[0])
        if self._release is None or self._policy is None:
            return
        if self._leader is not None:
            self._told(self._release.id, self._leader.step())
            self._state = self._leader.state
            if self._leader.ended:
                self._close()
                self._source.look()
                return
        else:
            self._state = releases.resumed(self._folder, self._release, self._policy)
        self._routing = self._policy.routing(self._state)

    def assign(self, client: int) -> Assigned | None:
        """What a device is to answer by: it sticks to its arm while no share changes."""
        from clients.fleet import Assigned

        release, routing = self._release, self._routing
        if release is None or routing is None or self._policy is None:
            return self._source.assign(client)
        if routing.closed:
            return None
        user = str(client)
        arm = self._policy.arm_for(self._state, user, None) if routing.flagged else None
        return Assigned(
            self._versions[arm or assigned(routing, salt=release.id, user=user)],
            self._source.newest,
            release=release_number(release.id),
            arms={self._versions[name].hash: number for number, name in enumerate(release.names)},
            mirrors=tuple(self._versions[name] for name in routing.mirrors) if self._copies(client) else (),
            fallback=self._versions[CHAMPION],
        )

    def _copies(self, client: int) -> bool:
        """Whether a device copies its questions to mirrors: for all of them or none, by its own number."""
        assert self._routing is not None and self._release is not None
        share = self._routing.mirrored_share
        split = Routing({CHAMPION: 1 - share, "mirrored": share})
        return assigned(split, salt=f"{self._release.id}/mirrors", user=str(client)) == "mirrored"

    def _open(self, release: Release) -> None:
        from server.releases import Leader

        self._release, self._policy = release, self._policy_for(release)
        self._versions = {arm.name: self._source.load(arm.version) for arm in release.arms}
        if self._held.enter_context(releases.lead(self._folder, release.id)):
            self._leader = Leader(self._folder, release, self._policy, self._ask, **self._leading)

    def _close(self) -> None:
        self._held.close()
        self._release = self._policy = self._routing = self._leader = None
