"""Callers whose every answer is compared with the one that it must be."""

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
PAUSE_S = 0.002  # there are others on this machine
CALLS = {"grpc_service": "latentserve.v1.GenerativeService"}


def images_of(tensor: Any) -> tiny_models.Floats:
    """The array of a Tensor of floats."""
    return np.frombuffer(tensor.data, np.float32).reshape(tensor.shape)


def tensor(array: tiny_models.Floats) -> tensor_pb2.Tensor:
    """A Tensor of float32."""
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes()
    )


def check_reconstruct(stub: Any, rows: int, seed: int, timeout_s: float = TIMEOUT_S) -> None:
    """One Reconstruct of random images; fails unless the answer is that of these images."""
    x = tiny_models.images(rows, seed)
    request = pb.ReconstructRequest(images=tensor_pb2.Images(tensor=tensor(x)))
    reply = stub.Reconstruct(request, timeout=timeout_s)
    expected = tiny_models.decode(tiny_models.encode(x))
    np.testing.assert_allclose(images_of(reply.images.tensor), expected, atol=1e-5)


class CheckedLoad:
    """Reconstruct, one call after the other from each of several connections, while it is open.

    Every caller sends images of its own, so that an answer that went astray is noticed. It tries
    nothing again: each failed call is in `failures`.
    """

    def __init__(self, server: Server, callers: int = 3) -> None:
        self.failures: list[str] = []
        self.answered = 0
        self._server = server
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number,)) for number in range(callers)
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
                        self.answered += 1
                self._stop.wait(PAUSE_S)

    def wait_for(self, calls: int) -> None:
        """Wait until so many more calls were answered."""
        wanted = self.answered + calls
        eventually(lambda: self.answered >= wanted or self.failures, "the load stands still")
        assert not self.failures, self.failures[:3]

    def __enter__(self) -> CheckedLoad:
        for thread in self._threads:
            thread.start()
        return self

    def finish(self) -> None:
        """Make no more calls, and fail where any has failed."""
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        assert not any(thread.is_alive() for thread in self._threads)
        assert not self.failures, self.failures[:3]

    def __exit__(self, *_: object) -> None:
        self.finish()
