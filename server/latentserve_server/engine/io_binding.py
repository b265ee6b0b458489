"""Runs a model on buffers that stay on the device, and as CUDA graphs where asked for.

A plain run copies its inputs to the GPU and its outputs back through memory that ONNX Runtime
allocates each time. Here every operation has one set of input and output buffers for each bucket of
rows (1, 2, 4, ... max_batch_rows), made when it is first needed, which the warm-up does for the
smallest and the largest:

* inputs are copied in with one `update_inplace` each, outputs out with one copy each, into memory
  that belongs to the caller;
* without CUDA graphs the graph runs on exactly the rows of the batch, at the front of the buffers;
* with CUDA graphs, which need fixed shapes and addresses, the batch is padded with zeros up to
  its bucket, and the padding is cut from the outputs.

It runs on the CPU provider as well, with buffers in ordinary memory, and so it is tested there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnxruntime

from latentserve_server.engine.cuda_options import bucket_of
from latentserve_server.engine.cuda_thread import device_thread
from latentserve_server.engine.device import Device
from latentserve_server.engine.onnx import FAILURES, Floats, OnnxEngine, refuse_if_out_of_memory
from latentserve_server.engine.session import open_session
from latentserve_server.errors import EngineFailure
from latentserve_server.manifest.reader import Manifest, OperationSpec


class IoBindingEngine(OnnxEngine):
    """An engine with buffers on the device; see OnnxEngine for what it takes and raises.

    Attributes:
        on_padding: told of the operation and the rows of padding of every padded batch.
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
        self._slots: dict[tuple[str, int], _Slot] = {}
        self._thread = device_thread(device.device_id) if device.cuda_graphs else None
        super().__init__(manifest, device, threads=threads, opener=opener)

    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        """Run one batch; one with more rows than the largest bucket runs in several."""
        self._check(operation, inputs)
        rows, largest = len(inputs[0]), self._device.buckets[-1]
        if rows > largest:
            parts = [
                self.run(operation, [each[start : start + largest] for each in inputs])
                for start in range(0, rows, largest)
            ]
            return [np.concatenate(each) for each in zip(*parts, strict=True)]
        if self._thread is None:
            return self._run_slot(operation, inputs, rows)
        return self._thread.call(lambda: self._run_slot(operation, inputs, rows))

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        """Run every operation at every batch size, and at every bucket with CUDA graphs.

        The largest comes first, so that the arena grows once. The first of two runs captures a
        graph (ONNX Runtime runs it as often as it must for that), the second replays it.
        """
        buckets = self._device.buckets if self._device.cuda_graphs else ()
        return super().warm_up(sorted({*batch_rows, *buckets}, reverse=True))

    def _run_slot(self, operation: str, inputs: Sequence[Floats], rows: int) -> list[Floats]:
        bucket = bucket_of(rows, self._device.buckets)
        try:
            slot = self._slots.get((operation, bucket))
            if slot is None:
                slot = self._slots[operation, bucket] = self._make_slot(operation, bucket)
            outputs = slot.run(inputs, rows)
        except FAILURES as error:
            refuse_if_out_of_memory(error, operation, rows)
            raise
        if self._device.cuda_graphs and bucket > rows:
            self.on_padding(operation, bucket - rows)
        return outputs

    def _make_slot(self, operation: str, bucket: int) -> _Slot:
        spec = self._manifest.operations[operation]
        input_shape = (bucket, *self._manifest.input_shape(operation))
        output_shape = (bucket, *self._manifest.output_shape(operation))
        return _Slot(
            self._sessions[spec.file],
            self._device,
            inputs=dict.fromkeys(spec.inputs, input_shape),
            outputs=dict.fromkeys(spec.outputs, output_shape),
            graph_id=len(self._slots) + 1 if self._device.cuda_graphs else None,
        )

    def _check(self, operation: str, inputs: Sequence[Floats]) -> None:
        """Refuse what a copy into a buffer would cast or broadcast without a word."""
        shape = self._manifest.input_shape(operation)
        for each in inputs:
            if each.dtype != np.float32 or each.shape[1:] != shape:
                raise EngineFailure(
                    f"{operation} was given {each.dtype} {list(each.shape)}, "
                    f"expected float32 [rows, {', '.join(map(str, shape))}]"
                )


class _Slot:
    """The buffers of one operation for up to so many rows, and what they are bound to.

    Args:
        session: of the operation's graph.
        device: where the buffers lie.
        inputs, outputs: tensor name -> shape, its first dimension the bucket, in manifest order.
        graph_id: of the CUDA graph, unique in the session; None: no graph, any rows.
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
        """Run `rows` rows, at most the bucket; the outputs are the caller's own."""
        for given, staging, buffer in zip(
            inputs, self._staging, self._inputs.values(), strict=True
        ):
            buffer.update_inplace(self._whole(given, staging, rows))
        self._bind(self._bucket if self._padded else max(rows, 1))
        self._session.run_with_iobinding(self._binding, self._options)
        # These are new arrays, from a GPU and from the CPU alike: one copy each.
        return [each[:rows] for each in self._binding.copy_outputs_to_cpu()]

    def _buffer(self, shape: tuple[int, ...]) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            shape, np.float32, self._device.name, self._device.device_id
        )

    def _whole(self, given: Floats, staging: Floats, rows: int) -> Floats:
        """Return the rows with zeros up to the bucket, which is what `update_inplace` takes."""
        if rows == self._bucket:
            return given
        staging[:rows] = given
        staging[rows:] = 0.0  # no result may depend on what an earlier batch left there
        return staging

    def _bind(self, rows: int) -> None:
        """Bind the first `rows` rows of every buffer."""
        if rows == self._bound_rows:
            return
        self._bound_rows = 0  # until all of it is bound
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
