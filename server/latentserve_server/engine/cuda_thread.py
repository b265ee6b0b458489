"""One thread for all that replays CUDA graphs on a GPU.

ONNX Runtime keeps captured graphs for each thread that runs a session, and while one is captured
no thread of the process may allocate on the GPU or copy to it (cudaStreamCaptureModeGlobal). So
the warm-up, which captures, and the batches of every model go through the same thread, in turn.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class CudaThread:
    """Runs calls one after another on a thread of its own, which ends with the process."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        # A daemon: a call that hangs in a driver must not keep the process from ending.
        threading.Thread(target=self._loop, name=name, daemon=True).start()

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
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller
                future.set_exception(error)
            # Until the next call nothing of this one, such as a model, may be kept alive.
            del future, function


@functools.cache
def device_thread(device_id: int) -> CudaThread:
    """Return the thread of a GPU, the same for every model of this process."""
    return CudaThread(f"gpu-{device_id}")
