"""onnxruntime called in a loop, on one thread: what there is to reach with nothing round it."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnxruntime


def main() -> None:
    """The ONNX file, a .npy with the inputs of a call, seconds; prints one JSON object."""
    model, inputs, seconds = sys.argv[1], np.load(sys.argv[2]), float(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    took: list[float] = []
    session.run(["output"], {"input": inputs})
    began = now = time.perf_counter()
    while now - began < seconds:
        session.run(["output"], {"input": inputs})
        now, before = time.perf_counter(), now
        took.append(now - before)
    took.sort()
    told = {
        "requests": len(took),
        "seconds": now - began,
        "statuses": {"200": len(took)},
        "p50": took[len(took) // 2],
        "p99": took[int(0.99 * (len(took) - 1))],
        "cpu_seconds": 0.0,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
