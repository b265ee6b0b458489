"""Server with an intentional memory leak of 1 KB per batch, which the soak test must detect.

A batch has one or more calls, so that the leak is at most 1 KB per call.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latentserve_server.config import read_settings
from latentserve_server.engine.device import Device
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.manifest.reader import Manifest
from latentserve_server.observability.logs import format as log_format
from latentserve_server.process import serve

KEPT: list[bytes] = []


class LeakyEngine(OnnxEngine):
    """Keeps 1 KB for every run."""

    def run(
        self, operation: str, inputs: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        KEPT.append(os.urandom(1024))
        return super().run(operation, inputs)


def leaky_engine(manifest: Manifest, device: Device, threads: int) -> LeakyEngine:
    return LeakyEngine(manifest, device, threads=threads)


if __name__ == "__main__":
    settings = read_settings(sys.argv[1:])
    log_format.configure(settings.log_format, settings.log_level)
    asyncio.run(serve(settings, leaky_engine))
