"""The clients of a foreign Flower app: processes that run its ClientApp, and who of them does which message.

A hand is one such process, or a Ray actor, behind a socket. Messages for a client go to its own hand, whose module may
have cached the client's data, unless another is idle. What they share, a round's model, goes to a hand once. A hand
that dies is replaced and the message it was at is tried once more; one that hangs is replaced when others wait for it.
A client that costs two hands is quarantined.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.foreign_state import States
from fl.foreign import frames
from fl.foreign.frames import Buffer, Frame
from fl.foreign.refused import REFUSED

MAIN = Path(frames.__file__).resolve().parent / "__main__.py"
MAX_ATTEMPTS = 2
CHUNK_SECONDS, MOST_IN_A_CHUNK = 0.05, 64
"""Messages that a hand gets at a time: as many as it does in this time, and fewer towards the end of a round."""

SOON_SECONDS, A_BATCH = 0.001, 32
"""Where clients take less than this, and this many are still out, answers are better passed on in batches."""

GRACE_SECONDS = 2.0
"""How long a hand may be at a message that nobody waits for any more while others do wait."""

CRASHED = 8


@dataclass(frozen=True)
class Hand:
    """A process of the app: the socket to it, and how to end it, after the seconds it is given to end by itself."""

    socket: socket.socket
    end: Callable[[float], None]


@dataclass
class Payload:
    """Buffers that messages of one push share, by number, until the last of them is answered."""

    buffers: dict[int, Buffer]
    open: int


@dataclass
class Job:
    """A message on its way to a client."""

    header: dict[str, Any]
    payload: Payload
    attempts: int = 0
    abandoned: float | None = None

    @property
    def id(self) -> str:
        """The message's id."""
        return str(self.header["id"])

    @property
    def partition(self) -> int:
        """The client it goes to."""
        return int(self.header["partition"])


@dataclass
class Worker:
    """A hand and what it is doing. ``known``: numbers of the buffers it holds."""

    hand: Hand
    reader: frames.Reader
    ready: bool = False
    running: dict[str, Job] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    queue: deque[Job] = field(default_factory=deque)


def process_hand(role: str, setting: Mapping[str, Any]) -> Hand:
    """Start a process of the app: ``role`` is "client" or "server"."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-P", str(MAIN), role, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        start_new_session=True,  # Ctrl-C is for the driver, which ends the others
    )
    theirs.close()
    frames.send(ours, {**setting, "parent": os.getpid()})

    def end(patience: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)
        ours.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    return Hand(ours, end)


class Crew:
    """``size`` hands that ``hire`` starts, and the messages among them. Single-threaded: the driver's loop calls it."""

    def __init__(self, *, size: int, hire: Callable[[], Hand], states: States) -> None:
        self._hire, self._states = hire, states
        self._workers: list[Worker] = []
        self._jobs: dict[str, Job] = {}
        self._numbers = 0
        self._mean_seconds = CHUNK_SECONDS
        self._crashes: dict[int, int] = {}
        self._answers: list[Frame] = []
        self._asked = 0
        self._told = {"answered": 0, "failed": 0, "refused": 0}
        try:
            for _ in range(size):
                self._workers.append(Worker(hand := hire(), frames.Reader(hand.socket)))
        except BaseException:
            self.close()
            raise

    @property
    def sockets(self) -> list[socket.socket]:
        """What to wait at for the hands' answers; changes when one is replaced."""
        return [worker.hand.socket for worker in self._workers]

    @property
    def ready(self) -> bool:
        """Whether every hand has loaded the app."""
        return all(worker.ready for worker in self._workers)

    def submit(self, header: Mapping[str, Any], buffers: Sequence[Buffer]) -> None:
        """Take the messages of one push."""
        first = self._numbers
        self._numbers += len(buffers)
        payload = Payload(dict(enumerate(buffers, first)), len(header["jobs"]))
        self._asked += len(header["jobs"])
        for row in header["jobs"]:
            content = header["contents"][row.pop("content")]
            row |= {"head": first + content["head"], "arrays": [first + place for place in content["arrays"]]}
            job = Job(row, payload)
            self._jobs[job.id] = job
            if self._crashes.get(job.partition, 0) >= MAX_ATTEMPTS:
                self._answer_for(job, "quarantined: it cost two processes")
            else:
                self._home(job).append(job)
        self._feed()

    def abandon(self, ids: Iterable[str]) -> None:
        """Nobody waits for these messages any more."""
        gone = {self._jobs[i].id for i in ids if i in self._jobs}
        for worker in self._workers:
            for job in [job for job in worker.queue if job.id in gone]:
                worker.queue.remove(job)
                self._close(job)
        for job_id in gone & self._jobs.keys():
            self._jobs[job_id].abandoned = time.monotonic()

    def read(self, source: socket.socket) -> None:
        """Take what a hand has sent, or notice its death."""
        worker = next(w for w in self._workers if w.hand.socket is source)
        try:
            self._hear(worker, *worker.reader.receive())
            while worker.reader.holds_a_frame:
                self._hear(worker, *worker.reader.receive())
        except (EOFError, OSError):
            self._replace(worker)
        self._feed()

    def _hear(self, worker: Worker, header: dict[str, Any], buffers: list[Buffer]) -> None:
        if header["op"] == "failed" or (header["op"] == "died" and not worker.ready):
            raise ClientAppNotLoaded(header["trace"])
        if header["op"] == "ready":
            worker.ready = True
        elif header["op"] == "reply":
            self._take(worker, header, buffers)

    @property
    def counts(self) -> dict[str, int]:
        """What became of all messages so far, of every kind; late are those that nobody waited for to the end."""
        return {"asked": self._asked, **self._told, "late": self._asked - sum(self._told.values())}

    @property
    def soon(self) -> bool:
        """Whether some answers are there, and in a moment there will be more to pass on with them."""
        return 0 < len(self._answers) < A_BATCH <= len(self._jobs) and self._mean_seconds < SOON_SECONDS

    def answers(self) -> list[Frame]:
        """Replies since the last call, for the ServerApp."""
        answers, self._answers = self._answers, []
        return answers

    def patience(self) -> float | None:
        """Seconds after which ``relieve`` may have something to do; None: nothing is overdue."""
        if not any(worker.queue for worker in self._workers):
            return None
        stuck = [job.abandoned for job in map(_current, self._workers) if job and job.abandoned is not None]
        return max(0.01, min(stuck) + GRACE_SECONDS - time.monotonic()) if stuck else None

    def relieve(self) -> None:
        """Replace hands that are stuck with what nobody waits for, while others wait."""
        if self.patience() is None:
            return
        for worker in self._workers:
            job = _current(worker)
            if job and job.abandoned is not None and time.monotonic() - job.abandoned >= GRACE_SECONDS:
                self._replace(worker)
        self._feed()

    def close(self) -> None:
        """End every hand."""
        for worker in self._workers:
            worker.hand.end(0.0)
        self._workers = []

    def _feed(self) -> None:
        for worker in self._workers:
            if not worker.ready or worker.running:
                continue
            jobs = self._next_jobs(worker)
            if jobs:
                self._give(worker, jobs)

    def _home(self, job: Job) -> deque[Job]:
        """The one queue that a client's messages stand in, so that they keep their order."""
        return self._workers[job.partition % len(self._workers)].queue

    def _next_jobs(self, worker: Worker) -> list[Job]:
        own = bool(worker.queue)
        queue = worker.queue if own else max((w.queue for w in self._workers), key=len)
        fair = sum(len(w.queue) for w in self._workers) // (2 * len(self._workers))
        size = int(max(1, min(MOST_IN_A_CHUNK, fair, CHUNK_SECONDS / max(self._mean_seconds, 1e-6))))
        # One message of a client at a time, in their order: the next one finds the state that this one leaves.
        busy = {job.partition for w in self._workers for job in w.running.values()}
        ahead = Counter(job.partition for job in queue) if not own else Counter()
        jobs: list[Job] = []
        later: list[Job] = []
        while queue and len(jobs) < size:
            job = queue.popleft() if own else queue.pop()
            ahead[job.partition] -= 1
            if job.partition in busy or ahead[job.partition] > 0:
                later.append(job)
            else:
                jobs.append(job)
                busy.add(job.partition)
        (queue.extendleft if own else queue.extend)(reversed(later))
        return jobs

    def _give(self, worker: Worker, jobs: Sequence[Job]) -> None:
        new: dict[int, Buffer] = {}
        for job in jobs:
            for number in (job.header["head"], *job.header["arrays"]):
                if number not in worker.known:
                    new[number] = job.payload.buffers[number]
        live = {number for job in self._jobs.values() for number in job.payload.buffers} if new else worker.known
        drop = worker.known - live
        states: list[Buffer] = []
        rows = []
        for job in jobs:
            state = self._states.get(job.partition)
            rows.append({**job.header, "state": None if state is None else len(new) + len(states)})
            states += [] if state is None else [state]
            worker.running[job.id] = job
        worker.known = (worker.known - drop) | new.keys()
        header = {"op": "work", "jobs": rows, "new": list(new), "drop": sorted(drop)}
        with suppress(OSError):  # one that is dead says so when its socket is read
            frames.send(worker.hand.socket, header, [*new.values(), *states])

    def _take(self, worker: Worker, header: dict[str, Any], buffers: list[Buffer]) -> None:
        job = worker.running.pop(header["id"])
        self._mean_seconds += 0.2 * (float(header["seconds"]) - self._mean_seconds)
        if header.pop("state"):
            state = buffers.pop()
            if job.abandoned is None:
                self._states.put(job.partition, state)
        self._close(job)
        if job.abandoned is None:
            self._tell(header, buffers)

    def _replace(self, worker: Worker) -> None:
        """A new hand for one that died, or is to; what it was at is tried again, or given up."""
        at = _current(worker)
        waiting = list(worker.running.values())
        worker.hand.end(0.0)
        if at is None and not worker.ready:
            raise ClientAppNotLoaded("the process that was to run the ClientApp ended while it loaded it\n")
        worker.hand, worker.ready, worker.running, worker.known = self._hire(), False, {}, set()
        worker.reader = frames.Reader(worker.hand.socket)
        if at is not None:
            at.attempts += 1
            self._crashes[at.partition] = self._crashes.get(at.partition, 0) + 1
        for job in reversed(waiting):
            if job.abandoned is not None:
                self._close(job)
            elif job.attempts >= MAX_ATTEMPTS:
                self._answer_for(job, "the process that ran it died, twice")
            else:
                self._home(job).appendleft(job)

    def _answer_for(self, job: Job, why: str) -> None:
        self._close(job)
        error = [CRASHED, f"client {job.partition}: {why}"]
        self._tell({"op": "reply", "id": job.id, "meta": None, "error": error, "seconds": 0.0}, [])

    def _tell(self, header: dict[str, Any], buffers: list[Buffer]) -> None:
        error = header["error"]
        self._told["answered" if not error else "refused" if error[0] == REFUSED else "failed"] += 1
        self._answers.append((header, buffers))

    def _close(self, job: Job) -> None:
        del self._jobs[job.id]
        job.payload.open -= 1
        if not job.payload.open:
            job.payload.buffers = {}


class ClientAppNotLoaded(Exception):
    """The ClientApp cannot be loaded; the text is the app's own traceback."""


def _current(worker: Worker) -> Job | None:
    """The message a hand is at: the first it has not answered."""
    return next(iter(worker.running.values()), None)
