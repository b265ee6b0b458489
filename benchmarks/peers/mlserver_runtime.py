"""MLServer runtime for a graph in ONNX Runtime."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):
    """One graph with one thread; MLServer forms the batches."""

    async def load(self) -> bool:
        """Open the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one batch."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        (output,) = self._session.run([self._output], {self._input: rows})
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(self._output, output)]
        )
