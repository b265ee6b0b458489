"""A real server that leaks on purpose: it keeps 1 KB of every batch that it runs, for ever.

A batch holds one call or several, so that this is less than 1 KB for each. The soak must see it.
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
from latentserve_server.observability import log_format
from latentserve_server.process import serve

KEPT: list[bytes] = []


class LeakyEngine(OnnxEngine):
    """Keeps something of every run."""

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
