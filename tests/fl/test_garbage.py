"""Nothing looks for garbage while torch is loaded; afterwards it is found again, and torch is left out."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import gc, json, weakref
from fl import garbage

looks = []
gc.callbacks.append(lambda phase, about: looks.append(phase))
garbage.loading()
import torch
while_loading = len(looks)
garbage.loaded()

class Cycle:
    def __init__(self):
        self.own = self

first = weakref.ref(Cycle())
some = [Cycle() for _ in range(5000)]
print(json.dumps([while_loading, first() is None, gc.get_freeze_count()]))
"""


def test_nothing_looks_for_garbage_while_torch_is_loaded_and_then_it_is_found() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    while_loading, found, left_out = json.loads(done.stdout)
    assert while_loading == 0
    assert found
    assert left_out > 50_000
