from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from latentserve_server.engine.squared_error import SquaredErrorRunner

Floats = NDArray[np.float32]


class Halving:
    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        return [inputs[0] / 2]


def test_each_row_of_a_reconstruction_gets_the_sum_of_its_squares() -> None:
    images = np.random.default_rng(0).random((3, 1, 4, 6), dtype=np.float32)
    halved, errors = SquaredErrorRunner(Halving()).run("reconstruct", [images])
    np.testing.assert_array_equal(halved, images / 2)
    assert errors.dtype == np.float32
    expected = [float(((image.astype(np.float64) / 2) ** 2).sum()) for image in images]
    np.testing.assert_allclose(errors, expected, rtol=1e-6)


@pytest.mark.parametrize("operation", ["encode", "decode", "denoise", "sample"])
def test_other_operations_have_the_outputs_of_the_engine(operation: str) -> None:
    assert len(SquaredErrorRunner(Halving()).run(operation, [np.ones((1, 2), np.float32)])) == 1
