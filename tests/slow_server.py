"""Server with a slow engine: `slow_server.py DELAY_S WARM_UP_DELAY_S [flags]`.

With --workers, it is started again for each worker, as `... --worker FD NUMBER`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from latentserve_server.config import read_settings
from latentserve_server.engine.device import Device
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.manifest.reader import Manifest
from latentserve_server.observability.logs import format as log_format
from latentserve_server.process import serve_and_end
from latentserve_server.supervisor.control_loop import supervise
from latentserve_server.supervisor.worker import run_worker

DELAY_S, WARM_UP_DELAY_S = map(float, sys.argv[1:3])


class SlowEngine(OnnxEngine):
    """Sleeps before every run, like a large model; a first pixel of 0.5 fails, 0.25 gives NaN."""

    delay_s = 0.0

    def check_golden(self) -> float:
        time.sleep(WARM_UP_DELAY_S)
        return super().check_golden()

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        super().warm_up(batch_rows)
        self.delay_s = DELAY_S
        return []  # the durations without the delay would be wrong

    def run(
        self, operation: str, inputs: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        time.sleep(self.delay_s)
        if operation == "reconstruct" and (inputs[0][:, 0, 0, 0] == 0.5).any():
            raise RuntimeError("secret detail of a failing engine")
        outputs = super().run(operation, inputs)
        if operation == "reconstruct":
            outputs[0][inputs[0][:, 0, 0, 0] == 0.25] = np.nan
        return outputs


def slow_engine(manifest: Manifest, device: Device, threads: int) -> SlowEngine:
    return SlowEngine(manifest, device, threads=threads)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--worker"]:
        return run_worker(int(arguments[1]), int(arguments[2]), slow_engine)
    settings = read_settings(arguments)
    log_format.configure(
        settings.log_format, settings.log_level, log_requests=settings.log_requests == "yes"
    )
    if settings.workers > 1:
        program = [sys.executable, *sys.argv[:3], "--worker"]
        return supervise(settings, program)
    asyncio.run(serve_and_end(settings, slow_engine))


if __name__ == "__main__":
    sys.exit(main(sys.argv[3:]))
