"""Every error of the tree: found by walking it, pickled, and read again, also in another process."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys

import pytest

from fl import errors
from fl.errors import (
    AppFailed,
    BadInput,
    ClientFailed,
    CorruptFile,
    Interrupted,
    MeadowError,
    MissingExtra,
    NotAccepted,
    StoppedByFaults,
    StorageFailed,
)

FIELDS = {
    "key": "client.learning_rate",
    "got": -1,
    "allowed": "a number above 0",
    "package": "onnx",
    "extra": "export",
    "round": 3,
    "asked": 10,
    "answered": 4,
    "reasons": ("client 7: out of memory", "client 8: lost"),
    "signal": "SIGTERM",
    "client": 17,
    "what": "delta",
    "why": "array 'w' holds a NaN or an infinity",
    "reason": "ValueError: no",
    "version": "run:7",
    "trial": "linear",
    "path": "/a/b.safetensors",
}


def tree(kind=MeadowError):
    return [kind, *(found for below in kind.__subclasses__() for found in tree(below))]


def example(kind):
    """An error of ``kind`` with every field it takes."""
    if kind is MeadowError:
        return kind(anything="goes")
    return kind(**{name: FIELDS[name] for name in inspect.signature(kind).parameters})


@pytest.mark.parametrize("kind", tree())
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(kind, protocol):
    error = example(kind)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.exit_status == error.exit_status


def test_every_error_crosses_a_process_border_and_is_raised_there():
    there = """
import pickle, sys
for error in pickle.load(sys.stdin.buffer):
    try:
        raise error
    except type(error) as caught:
        print(type(caught).__name__, caught)
"""
    examples = [example(kind) for kind in tree()]
    done = subprocess.run([sys.executable, "-c", there], input=pickle.dumps(examples), capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [f"{type(error).__name__} {error}" for error in examples]


@pytest.mark.parametrize("kind", tree())
def test_every_error_is_drawn_in_the_tree_and_says_its_fields(kind):
    assert kind.__module__ == errors.__name__
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__)
    error = example(kind)
    told = [value for value in error.fields.values() if not isinstance(value, tuple)]
    assert told
    assert all(str(value) in str(error) for value in told)
    assert all(getattr(error, name) == value for name, value in error.fields.items())


def test_exit_statuses_are_the_published_ones():
    expected = {
        BadInput: 2,
        MissingExtra: 2,
        StoppedByFaults: 3,
        StorageFailed: 3,
        AppFailed: 3,
        NotAccepted: 4,
        Interrupted: 130,
    }
    for kind in tree():
        assert kind.exit_status == expected.get(kind, 1), kind


@pytest.mark.parametrize(
    "error, text",
    [
        (
            BadInput(key="client.learning_rate", got=-1, allowed="a number above 0"),
            "client.learning_rate: got -1, allowed: a number above 0",
        ),
        (
            MissingExtra(key="--format", package="onnx", extra="export"),
            "--format: needs the package onnx, install it with: pip install 'meadow-fl[export]'",
        ),
        (
            StoppedByFaults(round=2, asked=9, answered=1, reasons=(f"client {i}: lost" for i in range(5))),
            "round 2: 1 of 9 clients answered (client 0: lost; client 1: lost; client 2: lost)",
        ),
        (StoppedByFaults(round=2, asked=9, answered=0), "round 2: 0 of 9 clients answered (no reason was given)"),
        (Interrupted(signal="Ctrl-C"), "stopped by Ctrl-C"),
        (ClientFailed(client=3, reason="KeyError: 'x'"), "client 3 failed: KeyError: 'x'"),
        (CorruptFile(path="/a", why="not JSON"), "/a: not JSON"),
    ],
)
def test_texts(error, text):
    assert str(error) == text


def test_a_missing_extra_is_bad_input_to_whoever_reads_its_fields():
    error: BadInput = MissingExtra(key="dataset", package="flwr-datasets", extra="hub")
    assert (error.key, error.got, error.allowed) == (
        "dataset",
        "no package flwr-datasets",
        "pip install 'meadow-fl[hub]'",
    )
