"""What a model costs to keep and to ask: its size is a fact, its speed a measurement on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from fl.models.evaluate import evaluating
from fl.parameters import Array, num_bytes, num_values
from fl.signature import Signature

WARM, TIMED, LONGEST_SECONDS = 5, 50, 2.0


def size(parameters: Mapping[str, Array]) -> dict[str, int]:
    """How many numbers, and their bytes."""
    return {"parameters": num_values(parameters), "bytes": num_bytes(parameters)}


def latency(module: nn.Module, signature: Signature) -> dict[str, float]:
    """Seconds for one example, alone, on one thread: the median and the 90 % quantile of up to 50 times.

    Of zeros: what a network takes does not depend on what it is asked. At most about two seconds are spent.
    """
    example = torch.zeros((1, *signature.input_shape), dtype=getattr(torch, signature.input_dtype))
    took: list[float] = []
    with evaluating(module):
        for _ in range(WARM):
            module(example)
        began = time.perf_counter()
        while len(took) < TIMED and (not took or time.perf_counter() - began < LONGEST_SECONDS):
            start = time.perf_counter()
            module(example)
            took.append(time.perf_counter() - start)
    return {"latency_seconds": float(np.median(took)), "latency_p90_seconds": float(np.quantile(took, 0.9))}
