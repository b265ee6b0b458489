"""Serves the benchmark's models with KServe's Python server.

    VENV/bin/python serve_kserve.py MODELS.json PORT SCRATCH

MODELS.json is that of serve_triton.py.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

# KServe's modules read the command line when they are imported.
MODELS, PORT, SCRATCH = sys.argv[1:]
del sys.argv[1:]

import onnxruntime  # noqa: E402
from kserve import InferOutput, InferResponse, Model, ModelServer  # noqa: E402


class OnnxModel(Model):  # type: ignore[misc]
    """One graph in ONNX Runtime, one thread; a run for each request, as KServe has no batcher."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given["name"])
        self._input, self._output = given["input"], given["output"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            given["graph"], options, providers=["CPUExecutionProvider"]
        )
        self.ready = True

    async def predict(self, payload: Any, *_: Any, **__: Any) -> InferResponse:
        """Run one request, raw bytes both ways."""
        rows = payload.inputs[0].as_numpy()
        (answer,) = self._session.run([self._output], {self._input: rows})
        output = InferOutput(self._output, list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


def free_port() -> int:
    """Return a port that nobody listens on: the HTTP server cannot be left out."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main() -> None:
    """Serve until told to stop."""
    os.chdir(SCRATCH)
    models = [OnnxModel(given) for given in json.loads(Path(MODELS).read_text())]
    server = ModelServer(
        http_port=free_port(), grpc_port=int(PORT), workers=1, enable_latency_logging=False
    )
    # Two lines for every call otherwise.
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server.start(models)


if __name__ == "__main__":
    main()
