"""Which engine runs a model on a device."""

from __future__ import annotations

from collections.abc import Callable

from latentserve_server.engine.device import Device
from latentserve_server.engine.interface import Engine
from latentserve_server.engine.io_binding import IoBindingEngine
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.manifest.reader import Manifest

EngineFactory = Callable[[Manifest, Device, int], Engine]
"""Makes the engine of a manifest on a device with that many threads."""


def onnx_engine(manifest: Manifest, device: Device, threads: int) -> Engine:
    """Return the real engine, with buffers on the device where it is to have them."""
    kind = IoBindingEngine if device.io_binding else OnnxEngine
    return kind(manifest, device, threads=threads)
