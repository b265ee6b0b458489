"""Thread that captures and replays all CUDA graphs of a GPU.

ONNX Runtime keeps captured graphs per thread that runs a session. During a capture, no thread of
the process may allocate on the GPU or copy to it (cudaStreamCaptureModeGlobal). So the warm-up,
which captures, and the batches of all models run on the same thread, one after another.
"""

from __future__ import annotations

import functools
import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from latentserve_server.vital_thread import VitalThread

Result = TypeVar("Result")


class CudaThread:
    """Runs functions one after another on a separate thread, which ends with the process."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        # A daemon thread, so that a call that hangs in a driver does not block the process exit.
        VitalThread(self._loop, name=name).start()

    def call(self, function: Callable[[], Result]) -> Result:
        """Run `function` on the thread; return what it returns, or raise what it raises."""
        future: Future[Result] = Future()
        self._calls.put((future, function))
        return future.result()

    def _loop(self) -> None:
        while True:
            future, function = self._calls.get()
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again in the caller
                future.set_exception(error)
            # Release the references of this call, for example to a model, before the next one.
            del future, function


@functools.cache
def device_thread(device_id: int) -> CudaThread:
    """Return the thread of a GPU; all models of this process share it."""
    return CudaThread(f"gpu-{device_id}")
