"""Nothing looks for garbage while torch is loaded; afterwards it is found again, and torch is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

BEFORE = """
import gc, json, weakref
from fl import garbage

class Cycle:
    def __init__(self):
        self.own = self

looks = []
gc.callbacks.append(lambda phase, about: looks.append(phase))
garbage.loading()
"""
LOADED = """
import torch
while_loading = len(looks)
garbage.loaded()
first = weakref.ref(Cycle())
some = [Cycle() for _ in range(5000)]
print(json.dumps([while_loading, first() is None, gc.get_freeze_count()]))
"""
NEVER_LOADED = """
first = weakref.ref(Cycle())
some = [Cycle() for _ in range(1_000_000)]
print(json.dumps([first() is None, gc.get_threshold() == garbage.OWN]))
"""


def said(program: str) -> Any:
    done = subprocess.run([sys.executable, "-c", BEFORE + program], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_nothing_looks_for_garbage_while_torch_is_loaded_and_then_it_is_found() -> None:
    while_loading, found, left_out = said(LOADED)
    assert while_loading == 0
    assert found
    assert left_out > 50_000


def test_a_command_that_goes_on_without_a_run_finds_it_too() -> None:
    assert said(NEVER_LOADED) == [True, True]
