"""Runner that adds the squared error per row to the outputs of `reconstruct`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentserve_server.batching.batcher import Runner
from latentserve_server.batching.request import Floats


class SquaredErrorRunner:
    """Wraps a runner; `reconstruct` gets one more output, the squared error of each row, [rows].

    The squared error is the sum of (image - reconstruction)^2 over an image. Computing it once per
    batch costs about as much as the numpy calls alone would cost for each request.
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
