"""Sockets between a pool and its workers: who is let in, and what a dead worker looks like."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from clients import sockets
from clients.dispatch import Died
from clients.sockets import Listener, Sockets, receive, send
from clients.transport import Segment

CONNECT = """
import sys
from clients.sockets import connect, receive, send
connection = connect(sys.argv[1].replace("@", chr(0)))
send(connection, sys.argv[2])
print("in", flush=True)
while True:
    kind, clients, content = receive(connection)
    send(connection, content if kind == "echo" else sys.exit(0))
"""


@pytest.fixture
def connecting():
    """Start a process that connects, says a word, and then sends back what it is told to."""
    started = []

    def connecting(listener, word):
        command = [sys.executable, "-c", CONNECT, listener.address.replace("\0", "@"), word]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert started[-1].stdout.readline() == b"in\n"
        return started[-1]

    yield connecting
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.close()


def test_each_worker_is_told_by_its_process_whoever_came_first_and_whatever_it_says(connecting, listener):
    stranger, one, other = (connecting(listener, word) for word in ("I am the other", "one", "other"))
    with listener.accept(other.pid) as theirs, listener.accept(one.pid) as its:
        assert (receive(theirs), receive(its)) == ("other", "one")
    assert stranger.poll() is None


def test_who_has_not_come_is_not_waited_for_for_ever(connecting, monkeypatch):
    monkeypatch.setattr(sockets, "MOST_SECONDS_TO_CONNECT", 0.3)
    hasty, began = Listener(), time.monotonic()
    connecting(hasty, "a stranger")
    with pytest.raises(TimeoutError):
        hasty.accept(os.getpid())
    assert time.monotonic() - began < 30
    hasty.close()


def test_an_answer_comes_back_and_a_worker_that_ends_has_died(connecting, listener):
    pool, segment = Sockets(), Segment()
    workers = {name: connecting(listener, name) for name in ("steady", "ends", "killed")}
    for name, process in workers.items():
        connection = listener.accept(process.pid)
        assert receive(connection) == name
        pool.add(name, connection)
    assert pool.wait(0) == []
    pool.call("steady", "echo", (1, 2), segment.pack(["an answer"]))
    assert pool.wait(30) == [("steady", ["an answer"])]
    pool.call("ends", "end", (), segment.pack(None))
    (found,) = pool.wait(30)
    assert found[0] == "ends" and isinstance(found[1], Died)
    pool.remove("ends")
    workers["killed"].kill()
    workers["killed"].wait()
    assert pool.wait(0) == []  # nobody asked it
    pool.call("killed", "echo", (), segment.pack(["nobody reads it"]))  # it says so when it is read, not here
    (found,) = pool.wait(30)
    assert found[0] == "killed" and isinstance(found[1], Died)
    pool.remove("killed")
    assert "killed" not in pool and "steady" in pool
    pool.call("steady", "echo", (), segment.pack(["another"]))
    assert pool.wait(30) == [("steady", ["another"])]
    pool.remove("steady")
    assert workers["steady"].wait(30) != 0  # it ends with its socket
    pool.close()
    segment.close()


def test_a_message_of_any_size_arrives_whole():
    import socket
    import threading

    ours, theirs = socket.socketpair()
    content = os.urandom(5_000_000)
    sender = threading.Thread(target=send, args=(ours, content))
    sender.start()
    assert receive(theirs) == content
    sender.join()
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs)
    theirs.close()
