"""Program that serves the benchmark's models with KServe's Python server.

    VENV/bin/python serve_kserve.py MODELS.json PORT SCRATCH

MODELS.json has the format of serve_triton.py.
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
    """One graph in ONNX Runtime, one thread; one run per request, because KServe has no batcher."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__(model["name"])
        self._input, self._output = model["input"], model["output"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model["graph"], options, providers=["CPUExecutionProvider"]
        )
        self.ready = True

    async def predict(self, payload: Any, *_: Any, **__: Any) -> InferResponse:
        """Run one request, with raw bytes in the request and the reply."""
        rows = payload.inputs[0].as_numpy()
        (array,) = self._session.run([self._output], {self._input: rows})
        output = InferOutput(self._output, list(array.shape), "FP32")
        output.set_data_from_numpy(array, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


def free_port() -> int:
    """Return a free port for the HTTP server, which cannot be disabled."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main() -> None:
    """Serve until a signal."""
    os.chdir(SCRATCH)
    models = [OnnxModel(model) for model in json.loads(Path(MODELS).read_text())]
    server = ModelServer(
        http_port=free_port(), grpc_port=int(PORT), workers=1, enable_latency_logging=False
    )
    # Otherwise it logs two lines per call.
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server.start(models)


if __name__ == "__main__":
    main()
