"""Engine with IO binding: fixed buffers on the device, and optional CUDA graphs.

A plain run copies its inputs to the GPU and its outputs back through memory that ONNX Runtime
allocates on each run. This engine has, for each operation and bucket of rows (1, 2, 4, ...
max_batch_rows), one set of input and output buffers. They are allocated on first use; the warm-up
does this for the smallest and the largest bucket.

* Inputs are copied in with one `update_inplace` each, outputs are copied out with one copy each,
  into new memory.
* Without CUDA graphs, the graph runs on exactly the rows of the batch, at the front of the buffers.
* CUDA graphs need fixed shapes and addresses. With them, the batch is padded with zeros to its
  bucket, and the padding is removed from the outputs.

The engine also runs on the CPU provider, with buffers in host memory; the tests use this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnxruntime

from latentserve_server.engine.cuda_options import bucket_of
from latentserve_server.engine.cuda_thread import device_thread
from latentserve_server.engine.device import Device
from latentserve_server.engine.onnx import FAILURES, Floats, OnnxEngine, raise_if_out_of_memory
from latentserve_server.engine.session import open_session
from latentserve_server.errors import EngineFailure
from latentserve_server.manifest.reader import Manifest, OperationSpec


class IoBindingEngine(OnnxEngine):
    """An engine with buffers on the device; see OnnxEngine for its arguments and errors.

    Attributes:
        on_padding: called with the operation and the rows of padding of each padded batch.
    """

    def __init__(
        self,
        manifest: Manifest,
        device: Device,
        *,
        threads: int,
        opener: Callable[[Manifest, OperationSpec, Device, int], Any] = open_session,
    ) -> None:
        self.on_padding: Callable[[str, int], None] = lambda operation, rows: None
        self._device = device
        self._buffers: dict[tuple[str, int], _BoundBuffers] = {}
        self._thread = device_thread(device.device_id) if device.cuda_graphs else None
        super().__init__(manifest, device, threads=threads, opener=opener)

    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        """Run one batch; split a batch with more rows than the largest bucket."""
        self._check(operation, inputs)
        rows, largest = len(inputs[0]), self._device.buckets[-1]
        if rows > largest:
            parts = [
                self.run(operation, [each[start : start + largest] for each in inputs])
                for start in range(0, rows, largest)
            ]
            return [np.concatenate(each) for each in zip(*parts, strict=True)]
        if self._thread is None:
            return self._run_bucket(operation, inputs, rows)
        return self._thread.call(lambda: self._run_bucket(operation, inputs, rows))

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        """Run every operation at every batch size, and with CUDA graphs at every bucket.

        The largest size runs first, so that the arena grows only once. The first of two runs
        captures a graph (ONNX Runtime repeats it as needed for this), the second one replays it.
        """
        buckets = self._device.buckets if self._device.cuda_graphs else ()
        return super().warm_up(sorted({*batch_rows, *buckets}, reverse=True))

    def _run_bucket(self, operation: str, inputs: Sequence[Floats], rows: int) -> list[Floats]:
        bucket = bucket_of(rows, self._device.buckets)
        try:
            buffers = self._buffers.get((operation, bucket))
            if buffers is None:
                buffers = self._buffers[operation, bucket] = self._allocate(operation, bucket)
            outputs = buffers.run(inputs, rows)
        except FAILURES as error:
            raise_if_out_of_memory(error, operation, rows)
            raise
        if self._device.cuda_graphs and bucket > rows:
            self.on_padding(operation, bucket - rows)
        return outputs

    def _allocate(self, operation: str, bucket: int) -> _BoundBuffers:
        spec = self._manifest.operations[operation]
        input_shape = (bucket, *self._manifest.input_shape(operation))
        output_shape = (bucket, *self._manifest.output_shape(operation))
        return _BoundBuffers(
            self._sessions[spec.file],
            self._device,
            inputs=dict.fromkeys(spec.inputs, input_shape),
            outputs=dict.fromkeys(spec.outputs, output_shape),
            graph_id=len(self._buffers) + 1 if self._device.cuda_graphs else None,
        )

    def _check(self, operation: str, inputs: Sequence[Floats]) -> None:
        """Refuse inputs that a copy into a buffer would silently cast or broadcast."""
        shape = self._manifest.input_shape(operation)
        for each in inputs:
            if each.dtype != np.float32 or each.shape[1:] != shape:
                raise EngineFailure(
                    f"{operation} was given {each.dtype} {list(each.shape)}, "
                    f"expected float32 [rows, {', '.join(map(str, shape))}]"
                )


class _BoundBuffers:
    """The buffers of one operation and bucket, bound to the inputs and outputs of its session.

    Args:
        session: session of the operation's graph.
        device: device of the buffers.
        inputs, outputs: tensor name -> shape, its first dimension the bucket, in manifest order.
        graph_id: id of the CUDA graph, unique in the session; None: no CUDA graph, no padding.
    """

    def __init__(
        self,
        session: Any,
        device: Device,
        *,
        inputs: dict[str, tuple[int, ...]],
        outputs: dict[str, tuple[int, ...]],
        graph_id: int | None,
    ) -> None:
        self._session = session
        self._device = device
        self._staging = [np.zeros(shape, dtype=np.float32) for shape in inputs.values()]
        self._inputs = {name: self._buffer(shape) for name, shape in inputs.items()}
        self._outputs = {name: self._buffer(shape) for name, shape in outputs.items()}
        self._binding = session.io_binding()
        self._bound_rows = 0
        self._bucket = len(self._staging[0])
        self._options = onnxruntime.RunOptions()
        self._padded = graph_id is not None
        if graph_id is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph_id))

    def run(self, inputs: Sequence[Floats], rows: int) -> list[Floats]:
        """Run `rows` rows, at most the bucket; return new arrays."""
        for given, staging, buffer in zip(
            inputs, self._staging, self._inputs.values(), strict=True
        ):
            buffer.update_inplace(self._pad(given, staging, rows))
        self._bind(self._bucket if self._padded else max(rows, 1))
        self._session.run_with_iobinding(self._binding, self._options)
        # This returns new arrays on both CPU and GPU, with one copy each.
        return [each[:rows] for each in self._binding.copy_outputs_to_cpu()]

    def _buffer(self, shape: tuple[int, ...]) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            shape, np.float32, self._device.name, self._device.device_id
        )

    def _pad(self, given: Floats, staging: Floats, rows: int) -> Floats:
        """Return the rows padded with zeros to the bucket, because `update_inplace` needs all."""
        if rows == self._bucket:
            return given
        staging[:rows] = given
        staging[rows:] = 0.0  # so that no result depends on rows of an earlier batch
        return staging

    def _bind(self, rows: int) -> None:
        """Bind the first `rows` rows of every buffer."""
        if rows == self._bound_rows:
            return
        self._bound_rows = 0  # until all buffers are bound
        for buffers, bind in (
            (self._inputs, self._binding.bind_input),
            (self._outputs, self._binding.bind_output),
        ):
            for name, buffer in buffers.items():
                shape = (rows, *buffer.shape()[1:])
                bind(
                    name,
                    self._device.name,
                    self._device.device_id,
                    np.float32,
                    shape,
                    buffer.data_ptr(),
                )
        self._bound_rows = rows
