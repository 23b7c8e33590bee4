"""Follows the open release of an alias: asks its policy a few times a second, and lets the router do what it says.

Of several servers of a registry one leads, whoever holds the release's lock: it adds up what all have counted, asks the
policy and keeps the state. The others do what the state says. One that ends is followed by another that does not, and a
server that is started again goes on from the state. Everything slow happens in a thread beside those who are answered.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import final

from fl.decisions import Action, Decision
from fl.errors import BadInput, MeadowError, StorageFailed
from fl.inference_log.records import MIRROR, Record
from fl.inference_log.writer import InferenceLog
from fl.registry.layout import release_folder, releases_folder
from fl.registry.releases import advance, ending, lead, read_state, release, resumed, write_state
from fl.releases import Evidence, Figures, Policy, Release, Routing, State
from fl.serving.batching import Batcher
from fl.serving.counting import added
from fl.serving.exchange import Exchange
from fl.serving.mirrors import Compared, Mirror
from fl.serving.model import Model
from fl.serving.router import Applied, Lane, Router
from fl.serving.slots import Slot

STEP_SECONDS, REST_SECONDS = 0.25, 0.4
"""From one step to the next, where the last one changed who answers and where it did not: each takes the interpreter
from those who are being answered for a few milliseconds. Two rests and a step are less than a second: by then the
servers that do not lead have followed.
"""

KEEP_SECONDS = 1.0
"""Between two writings of a state to which nothing but evidence came: what a kill costs at most. A decision is kept at
once. Written at each step, it was what those who were being answered at that moment waited for most.
"""

DRAIN_SECONDS = 10.0
"""How long a replica that is taken away may go on with what it has."""

SAME = ("task", "input_shape", "input_dtype", "input_scale", "num_outputs")
"""Of the signature: what the arms of a release share, since a request is asked of one or of the other."""


@final
class Steering:
    """Of one name that is served.

    policy_of   the policy of a release
    load        the model of a version, by its hash; picklable, because a shadow loads in a process of its own
    batcher     whose bounds the arms' queues have
    """

    def __init__(
        self,
        folder: Path,
        slot: Slot,
        *,
        policy_of: Callable[[Release], Policy],
        load: Callable[[str], Model],
        batcher: Batcher,
        log: InferenceLog | None = None,
    ) -> None:
        self.folder, self.slot = folder, slot
        self.leads = False
        self._policy_of, self._load, self._batcher, self._log = policy_of, load, batcher, log
        self._ended: set[str] = set()
        self._keeping, self._keep_at = threading.Lock(), 0.0
        self._unkept: tuple[State, Decision] | None = None
        self._exchange: Exchange | None = None
        self._leading = ExitStack()
        self._waiting: dict[str, Figures] = {}
        self._retiring: dict[Lane, asyncio.Task[None]] = {}

    async def follow(self) -> None:
        """Keep looking, for as long as the server runs."""
        moved = True
        while True:
            await asyncio.sleep(STEP_SECONDS if moved else REST_SECONDS)
            before = self._now()
            await self.step()
            moved = self._now() != before

    async def step(self) -> None:
        """See whether a release is open, and take it one step on."""
        try:
            router = self.slot.router
            if router is None:
                found = await asyncio.to_thread(self._open)
                if found is None:
                    return
                router = await self._begin(found)
            await self._go_on(router)
        except MeadowError as error:
            self.slot.trouble = str(error)
        except Exception as error:  # noqa: BLE001  a policy that fails leaves everything as it is, and serving goes on
            self.slot.trouble = f"the release cannot go on: {type(error).__name__}: {error}"

    def close(self) -> bool:
        """Let go of the release, which stays open. False where a model hangs, so that its thread cannot end."""
        router = self.slot.router
        with self._keeping, suppress(StorageFailed):  # a full disk does not keep a server from ending
            if router and self._unkept:
                write_state(self.folder, router.release.id, *self._unkept)
        self._leading.close()
        lanes = [lane for lanes in router.applied.lanes.values() for lane in lanes] if router else []
        for mirror in router.applied.mirrors if router else ():
            mirror.end()
        for lane in (*lanes, *self._retiring):
            lane.batcher.close(wait=False)
        return not any(lane.batcher.busy for lane in (*lanes, *self._retiring))

    def _now(self) -> tuple[Router | None, Applied | None]:
        """The release that is open, and what is applied of it."""
        router = self.slot.router
        return router, router and router.applied

    # --- a release

    def _open(self) -> Release | None:
        place = releases_folder(self.folder)
        names = {path.name for path in place.iterdir()} if place.is_dir() else set()
        for name in sorted(names - self._ended):
            if not (release_folder(self.folder, name) / "release.json").is_file():
                continue  # it is being written
            found = release(self.folder, name)
            if ending(self.folder, name) is not None or found.target != "http":
                self._ended.add(name)
            elif found.serves == self.slot.means:
                return found
        return None

    async def _begin(self, found: Release) -> Router:
        policy = self._policy_of(found)
        state = await asyncio.to_thread(resumed, self.folder, found, policy)
        router = Router(found, policy, state)
        self._exchange = Exchange(release_folder(self.folder, found.id))
        router.seen.learn(await asyncio.to_thread(self._exchange.users, b""))
        await self._apply(router, policy.routing(state))
        self.slot.router = router
        return router

    async def _go_on(self, router: Router) -> None:
        figures, said = router.take()
        self._note(router.release, said)
        state, winner, users = await asyncio.to_thread(self._advance, router, figures, router.seen.take_new())
        router.seen.learn(users)
        router.state = state
        if winner is not None:
            await self._finish(router, winner)
            return
        await self._apply(router, router.policy.routing(state))

    def _advance(self, router: Router, figures: dict[str, Figures], new: bytes) -> tuple[State, str | None, bytes]:
        """The state now, the winner if it ended, and users that were met. In a thread: it reads and writes files."""
        assert self._exchange is not None, "made where the release began"
        found = router.release
        users = self._exchange.users(new)
        self._waiting = added([self._waiting, figures])
        state = router.state
        if not self.leads:
            self.leads = self._leading.enter_context(lead(self.folder, found.id))
            if self.leads:
                state = resumed(self.folder, found, router.policy)
        if self.leads and ending(self.folder, found.id) is None:
            mine, self._waiting = self._waiting, {}
            evidence = router.evidence([mine, *self._exchange.fetch()])
            state = self._lead(router, state, evidence)
        elif not self.leads:
            if self._waiting and self._exchange.give(self._waiting):
                self._waiting = {}
            standing = read_state(self.folder, found.id)
            state = standing.state if standing else state
        ended = ending(self.folder, found.id)
        return state, str(ended["winner"]) if ended else None, users

    def _lead(self, router: Router, state: State, evidence: Evidence) -> State:
        """One step as the leader."""
        with self._keeping:
            keep = time.monotonic() >= self._keep_at
            state, decision = advance(self.folder, router.release, router.policy, state, evidence, keep=keep)
            kept = keep or decision.action is not Action.HOLD
            self._unkept = None if kept else (state, decision)
            self._keep_at = time.monotonic() + KEEP_SECONDS if kept else self._keep_at
        return state

    async def _finish(self, router: Router, winner: str) -> None:
        """The winner's version answers from now on, with the model that is loaded already."""
        version = router.release.version(winner)
        model = router.model(version)
        if model is None and self.slot.current.hash != version:
            model = await asyncio.to_thread(self._load, version)
        if model is not None:
            self.slot.switches += model.hash != self.slot.current.hash
            self.slot.current, self.slot.trouble = model, ""
        self.slot.router = None
        self._ended.add(router.release.id)
        self._leading.close()
        self.leads, self._waiting, self._unkept = False, {}, None
        for mirror in router.applied.mirrors:
            mirror.end()
        for lanes in router.applied.lanes.values():
            for lane in lanes:
                self._retire(lane)

    # --- a routing

    async def _apply(self, router: Router, routing: Routing) -> None:
        """Let the router do what ``routing`` says, replica by replica where that takes loading and draining."""
        lanes = {arm: list(some) for arm, some in router.applied.lanes.items()}
        mirrors = self._mirrors(router, routing)

        def publish() -> None:
            router.apply(Applied(routing, {arm: tuple(some) for arm, some in lanes.items() if some}, mirrors))

        if routing != router.applied.routing or mirrors != router.applied.mirrors:
            publish()
        while True:
            wanted = _wanted(router, routing, mirrors)
            here = {arm: len(lanes.get(arm, ())) for arm in router.release.names}
            over = [arm for arm in here if here[arm] > wanted[arm]]
            under = [arm for arm in here if here[arm] < wanted[arm]]
            if not over and not under:
                return
            # One is drained before another is loaded, but the last one goes only when there is nobody to answer.
            if over and (routing.closed or sum(here.values()) > 1):
                lane = lanes[over[0]].pop()
                publish()
                await self._retire(lane)
            elif not under:
                return
            if under:
                lane_or_none = await self._load_lane(router, under[0])
                if lane_or_none is not None:
                    lanes.setdefault(under[0], []).append(lane_or_none)
                    publish()

    async def _load_lane(self, router: Router, arm: str) -> Lane | None:
        version = router.release.version(arm)
        first = not router.applied.lanes.get(arm)
        try:
            if first and self.slot.current.hash == version:
                model = self.slot.current
            else:
                model = await asyncio.to_thread(self._load, version)
            for key in SAME:
                ours, theirs = (getattr(one.signature, key) for one in (self.slot.current, model))
                if ours != theirs:
                    raise BadInput(key=f"{key} of {arm}", got=theirs, allowed=f"what {self.slot.means} has: {ours}")
        except Exception as error:  # noqa: BLE001  a version that cannot be loaded fails in the policy's eyes
            router.trouble[arm] = self.slot.trouble = str(error)
            return None
        return Lane(arm, model, self._batcher.another())

    def _retire(self, lane: Lane) -> asyncio.Task[None]:
        task = asyncio.create_task(self._drain(lane))
        self._retiring[lane] = task
        return task

    async def _drain(self, lane: Lane) -> None:
        ends = time.monotonic() + DRAIN_SECONDS
        while (lane.busy or lane.batcher.busy) and time.monotonic() < ends:
            await asyncio.sleep(0.005)
        lane.batcher.close(wait=False)
        if not lane.batcher.busy:
            del self._retiring[lane]

    def _mirrors(self, router: Router, routing: Routing) -> tuple[Mirror, ...]:
        known = {mirror.arm: mirror for mirror in router.applied.mirrors}
        for arm in known.keys() - set(routing.mirrors):
            known[arm].end()
        regression = self.slot.current.signature.task == "regression"
        return tuple(
            known.get(arm)
            or Mirror(
                arm,
                router.release.version(arm),
                self._load,
                regression=regression,
                most_rows=self._batcher.most_rows,
            )
            for arm in routing.mirrors
        )

    def _note(self, found: Release, said: Sequence[tuple[Mirror, Compared]]) -> None:
        """Keep what the shadows said, beside what their users were answered."""
        if self._log is None:
            return
        for mirror, compared in said:
            record = Record(MIRROR, "", time.time(), model="", version=mirror.name, release=found.id, arm=mirror.arm)
            status, outputs = (200, compared.answers) if compared.answers else (500, (None,) * len(compared.copies))
            told = [
                record._replace(id=copy.id, seconds=compared.seconds, outputs=one, status=status)
                for copy, one in zip(compared.copies, outputs, strict=True)
            ]
            self._log.add(*told)


def _wanted(router: Router, routing: Routing, mirrors: Sequence[Mirror]) -> dict[str, int]:
    """How many replicas each arm is to have."""
    names = router.release.names
    if routing.replicas is not None:
        wanted = {arm: int(routing.replicas.get(arm, 0)) for arm in names}
    else:
        shares = (routing.shares, *(routing.shares_by_context or {}).values())
        used = {arm for some in shares for arm, share in some.items() if share > 0}
        used |= set(names) if routing.flagged else set()
        # What has answered as a shadow will be switched to, and what was switched from may be returned to: at once.
        ready = {mirror.arm for mirror in mirrors if mirror.compared}
        ready |= set() if routing.closed else {arm for arm, lanes in router.applied.lanes.items() if lanes}
        wanted = {arm: int(arm in used or arm in ready) for arm in names}
    return {arm: 0 if arm in router.trouble else number for arm, number in wanted.items()}
