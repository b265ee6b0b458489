"""Factory of engines: chooses the engine class for a device."""

from __future__ import annotations

from collections.abc import Callable

from latentserve_server.engine.device import Device
from latentserve_server.engine.interface import Engine
from latentserve_server.engine.io_binding import IoBindingEngine
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.manifest.reader import Manifest

EngineFactory = Callable[[Manifest, Device, int], Engine]
"""Creates the engine of a manifest on a device with a number of threads."""


def onnx_engine(manifest: Manifest, device: Device, threads: int) -> Engine:
    """Return an ONNX Runtime engine, with IO binding if the device asks for it."""
    engine_class = IoBindingEngine if device.io_binding else OnnxEngine
    return engine_class(manifest, device, threads=threads)
