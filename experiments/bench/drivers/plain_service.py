"""What one writes first: FastAPI, pydantic models of the bodies, onnxruntime on one thread, a call a request."""

from __future__ import annotations

import socket
import sys
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Tensor(BaseModel):
    """A tensor of the Open Inference Protocol, as JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Asked(BaseModel):
    """A request."""

    inputs: list[Tensor]


class Answered(BaseModel):
    """An answer."""

    model_name: str
    outputs: list[Tensor]


def application(model: str) -> FastAPI:
    """The application that answers by the ONNX file ``model``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/v2/models/model/infer")
    async def infer(asked: Asked) -> Answered:
        given = asked.inputs[0]
        inputs: Any = np.array(given.data, dtype=np.float32).reshape(given.shape)
        outputs: Any = session.run(["output"], {"input": inputs})[0]
        told = Tensor(name="output", shape=list(outputs.shape), datatype="FP32", data=outputs.reshape(-1).tolist())
        return Answered(model_name="model", outputs=[told])

    return app


def main() -> None:
    """The ONNX file; prints the address."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    sys.stdout.write(f"http://127.0.0.1:{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(application(sys.argv[1]), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
