"""The programs and the example in docs/sampling.md give the same latents as the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentserve_server.sampling.prior import GaussianMixture, StandardNormal
from reference_draw import component_of, normal_row, philox_block

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sampling.md").read_text("utf-8")
EXAMPLE_SEED = 7
EXAMPLE = {
    "weights": np.array([0.25, 0.75]),
    "means": np.array([[0, 0], [10, -10]], np.float32),
    "factors": np.array([[[1, 0], [0.5, 2]], [[0.25, 0], [-1, 0.5]]], np.float32),
}


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the programs of the page define."""
    names: dict[str, Any] = {}
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        exec(program, names)  # noqa: S102 - the page is ours
    return names


@pytest.mark.parametrize("dim", [1, 4, 7])
@pytest.mark.parametrize("offset", [0, 2**62])
def test_the_program_for_a_standard_normal_prior(
    page: dict[str, Any], dim: int, offset: int
) -> None:
    drawn = StandardNormal(dim).sample(3, offset=offset, rows=20, temperature=0.5)
    np.testing.assert_array_equal(drawn, page["latents"](3, offset, 20, dim, temperature=0.5))


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("offset", [0, 2**62])
def test_the_program_for_a_mixture(page: dict[str, Any], offset: int, temperature: float) -> None:
    generator = np.random.default_rng(0)
    mixture: dict[str, NDArray[Any]] = {
        "weights": generator.dirichlet(np.ones(6)),
        "means": generator.normal(0, 5, (6, 7)).astype(np.float32),
        "factors": np.tril(generator.normal(0, 1, (6, 7, 7))).astype(np.float32),
    }
    drawn = GaussianMixture(**mixture).sample(3, offset=offset, rows=40, temperature=temperature)
    documented = page["mixture_latents"](mixture, 3, offset, 40, temperature)
    np.testing.assert_array_equal(drawn, documented)


def test_the_example(page: dict[str, Any]) -> None:
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| (\d) \| (.+), (.+) \| (.+), (.+) \|$", PAGE, re.M)
    assert len(rows) == 2
    for row, uniform, component, *numbers in rows:
        index = int(row)
        word = philox_block(index, EXAMPLE_SEED, 2)[0]
        assert (word >> 11) / 2**53 == pytest.approx(float(uniform), abs=1e-9)
        weights = EXAMPLE["weights"].tolist()
        assert component_of(weights, EXAMPLE_SEED, index) == int(component)
        noise, latents = numbers[:2], numbers[2:]
        assert normal_row(EXAMPLE_SEED, 0, index, 2) == pytest.approx(list(map(float, noise)))
        drawn = GaussianMixture(**EXAMPLE).sample(EXAMPLE_SEED, offset=index, rows=1)[0]
        np.testing.assert_allclose(drawn, list(map(float, latents)), rtol=1e-7)
