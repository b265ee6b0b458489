"""The squared error that Reconstruct reports, computed for a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentserve_server.batching.batcher import Runner
from latentserve_server.batching.request import Floats


class SquaredErrorRunner:
    """An engine whose `reconstruct` has one more output: the squared error of each row, [rows].

    It is the sum of (image - reconstruction)^2 over an image. One pass over a batch costs what
    the calls of numpy alone would cost for each of its callers.
    """

    def __init__(self, engine: Runner) -> None:
        self._engine = engine

    def run(self, operation: str, inputs: Sequence[Floats]) -> Sequence[Floats]:
        """Run one batch; see `Runner`."""
        outputs = self._engine.run(operation, inputs)
        if operation != "reconstruct":
            return outputs
        difference = (inputs[0] - outputs[0]).reshape(len(inputs[0]), -1)
        return [*outputs, np.einsum("nd,nd->n", difference, difference)]
