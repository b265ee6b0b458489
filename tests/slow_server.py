"""A real server whose engine takes its time: `slow_server.py DELAY_S WARM_UP_DELAY_S [flags]`."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from latentserve_server.app import serve
from latentserve_server.config import read_settings
from latentserve_server.device import Device
from latentserve_server.engine import OnnxEngine
from latentserve_server.manifest import Manifest

DELAY_S, WARM_UP_DELAY_S = map(float, sys.argv[1:3])


class SlowEngine(OnnxEngine):
    """Sleeps before every run, as a large model would compute; fails for a first pixel of 0.5."""

    delay_s = 0.0

    def check_golden(self) -> float:
        time.sleep(WARM_UP_DELAY_S)
        return super().check_golden()

    def warm_up(self, batch_rows: Iterable[int]) -> None:
        super().warm_up(batch_rows)
        self.delay_s = DELAY_S

    def run(
        self, operation: str, inputs: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        time.sleep(self.delay_s)
        if operation == "reconstruct" and (inputs[0][:, 0, 0, 0] == 0.5).any():
            raise RuntimeError("secret detail of a failing engine")
        return super().run(operation, inputs)


def slow_engine(manifest: Manifest, device: Device, threads: int) -> SlowEngine:
    return SlowEngine(manifest, device, threads=threads)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(read_settings(sys.argv[3:]), slow_engine))
