"""Model for Triton's Python backend, with one ONNX Runtime run per batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    """The class that Triton expects in model.py."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph, with one thread."""
        config = json.loads(args["model_config"])
        self._input = config["input"][0]["name"]
        self._output = config["output"][0]["name"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            config["parameters"]["graph"]["string_value"],
            options,
            providers=["CPUExecutionProvider"],
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests of a batch as one array, and split the output."""
        arrays = [
            backend.get_input_tensor_by_name(request, self._input).as_numpy()
            for request in requests
        ]
        whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        (rows,) = self._session.run([self._output], {self._input: whole})
        ends = np.cumsum([len(array) for array in arrays])[:-1]
        return [
            backend.InferenceResponse([backend.Tensor(self._output, part)])
            for part in np.split(rows, ends)
        ]
