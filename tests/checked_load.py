"""Load generator that compares every reply with the expected one."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import numpy as np

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from served import Server
from vitals import eventually

TIMEOUT_S = 30.0
PAUSE_S = 0.002  # leaves CPU time to other tests
CALLS = {"grpc_service": "latentserve.v1.GenerativeService"}


def images_of(tensor: Any) -> tiny_models.Floats:
    """Return the array of a float32 Tensor."""
    return np.frombuffer(tensor.data, np.float32).reshape(tensor.shape)


def tensor(array: tiny_models.Floats) -> tensor_pb2.Tensor:
    """Return a float32 Tensor."""
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes()
    )


def check_reconstruct(stub: Any, rows: int, seed: int, timeout_s: float = TIMEOUT_S) -> None:
    """Reconstruct random images, and fail unless the reply belongs to these images."""
    x = tiny_models.images(rows, seed)
    request = pb.ReconstructRequest(images=tensor_pb2.Images(tensor=tensor(x)))
    reply = stub.Reconstruct(request, timeout=timeout_s)
    expected = tiny_models.decode(tiny_models.encode(x))
    np.testing.assert_allclose(images_of(reply.images.tensor), expected, atol=1e-5)


class CheckedLoad:
    """Context manager that sends Reconstruct calls sequentially on each of several connections.

    Every client sends different images, so that a reply to the wrong client is detected. Calls
    are not retried: each failed call is in `failures`.
    """

    def __init__(self, server: Server, clients: int = 3) -> None:
        self.failures: list[str] = []
        self.completed = 0
        self._server = server
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number,)) for number in range(clients)
        ]

    def _call(self, number: int) -> None:
        with self._server.generative() as stub:
            seed = number * 1_000_000
            while not self._stop.is_set():
                seed += 1
                try:
                    check_reconstruct(stub, 1 + seed % 3, seed)
                except (grpc.RpcError, AssertionError) as error:
                    self.failures.append(str(error))
                    return
                else:
                    with self._lock:
                        self.completed += 1
                self._stop.wait(PAUSE_S)

    def wait_for(self, calls: int) -> None:
        """Wait until this number of additional calls completed."""
        target = self.completed + calls
        eventually(lambda: self.completed >= target or self.failures, "no call completes")
        assert not self.failures, self.failures[:3]

    def __enter__(self) -> CheckedLoad:
        for thread in self._threads:
            thread.start()
        return self

    def finish(self) -> None:
        """Stop sending calls, and fail if any call failed."""
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        assert not any(thread.is_alive() for thread in self._threads)
        assert not self.failures, self.failures[:3]

    def __exit__(self, *_: object) -> None:
        self.finish()
