"""Frames arrive as they were sent, whatever their size, and half a frame is no frame."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.foreign import frames

SIZES = st.sampled_from([0, 1, 7, frames.SMALL, frames.SMALL + 1, 3 * frames.SMALL])


@given(st.lists(SIZES, max_size=5))
def test_what_is_sent_is_received(sizes):
    buffers = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=frames.send, args=(ours, {"sizes": sizes}, buffers))
        sender.start()
        header, received = frames.receive(theirs)
        sender.join()
    assert header == {"sizes": sizes} and [bytes(b) for b in received] == buffers


def test_half_a_frame_is_an_end():
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"\x10\x00\x00\x00\x01\x00")
        with pytest.raises(EOFError):
            frames.receive(theirs)


def test_a_reader_tells_of_frames_it_has_read_ahead():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for number in range(3):
            frames.send(ours, {"number": number}, [b"x" * number])
        reader = frames.Reader(theirs)
        assert not reader.holds_a_frame
        assert reader.receive() == ({"number": 0}, [b""])
        assert reader.holds_a_frame, "else it would be waited for although it is here"
        assert [reader.receive()[1] for _ in range(2)] == [[b"x"], [b"xx"]]
        assert not reader.holds_a_frame
