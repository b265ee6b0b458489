"""Priors: samples match docs/sampling.md, and an invalid mixture file refuses the model."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_models
from latentserve_server.engine.device import CPU
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.errors import ManifestError
from latentserve_server.manifest.reader import Manifest, read_manifest
from latentserve_server.model_limits import Limits
from latentserve_server.repository.loader import Loader
from latentserve_server.repository.model_version import State
from latentserve_server.sampling import philox
from latentserve_server.sampling.prior import (
    GaussianMixture,
    Prior,
    StandardNormal,
    check_golden_samples,
    read_prior,
)
from reference_draw import component_of, mixture_row

Arrays = dict[str, NDArray[Any]]


def random_mixture(components: int, dim: int, seed: int) -> GaussianMixture:
    return GaussianMixture(*random_arrays(components, dim, seed))


def random_arrays(
    components: int, dim: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(components))
    means = generator.normal(0, 5, (components, dim)).astype(np.float32)
    factors = np.tril(generator.normal(0, 1, (components, dim, dim))).astype(np.float32)
    diagonal = np.arange(dim)
    factors[:, diagonal, diagonal] = np.abs(factors[:, diagonal, diagonal]) + 0.1
    return weights, means, factors


# --- samples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 12345, philox.MAX_OFFSET])
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_rows_match_the_specification(dim: int, seed: int, offset: int, temperature: float) -> None:
    weights, means, factors = random_arrays(4, dim, seed=dim)
    mixture = GaussianMixture(weights, means, factors)
    rows = mixture.sample(seed, offset=offset, rows=6, temperature=temperature)
    expected = [
        mixture_row(
            weights.tolist(), means.tolist(), factors.tolist(), seed, offset + k, temperature
        )
        for k in range(6)
    ]
    assert rows.dtype == np.float32
    # ln, cos and sin may differ in the last bit: a unit in the last place of the noise.
    np.testing.assert_allclose(rows, np.array(expected, np.float32), rtol=1e-6, atol=2e-6)


def test_the_noise_is_the_row_that_a_standard_normal_prior_gives() -> None:
    dim = 5
    alone = GaussianMixture(
        np.ones(1), np.zeros((1, dim), np.float32), np.eye(dim, dtype=np.float32)[np.newaxis]
    )
    noise = StandardNormal(dim).sample(7, offset=3, rows=20)
    assert alone.sample(7, offset=3, rows=20).tobytes() == noise.tobytes()
    assert noise.tobytes() == (
        philox.standard_normal(7, philox.PRIOR, offset=3, rows=20, dim=dim).tobytes()
    )


@pytest.mark.parametrize("prior", [random_mixture(9, 7, seed=1), StandardNormal(7)])
def test_a_row_does_not_depend_on_the_rows_sampled_with_it(prior: Prior) -> None:
    whole = prior.sample(9, offset=0, rows=300, temperature=0.8)
    generator = np.random.default_rng(0)
    for _ in range(60):
        start = int(generator.integers(0, 300))
        rows = int(generator.integers(1, 301 - start))
        part = prior.sample(9, offset=start, rows=rows, temperature=0.8)
        assert part.tobytes() == whole[start : start + rows].tobytes()


def test_at_temperature_0_a_row_is_the_mean_of_its_component() -> None:
    weights, means, factors = random_arrays(5, 3, seed=2)
    rows = GaussianMixture(weights, means, factors).sample(1, offset=0, rows=50, temperature=0.0)
    component = [component_of(weights.tolist(), 1, row) for row in range(50)]
    assert len(set(component)) > 1
    np.testing.assert_array_equal(rows, means[component])


def test_the_temperature_does_not_change_the_component() -> None:
    mixture = random_mixture(5, 3, seed=2)
    cold, one, warm = (
        mixture.sample(1, offset=0, rows=50, temperature=t).astype(np.float64) for t in (0, 1, 2)
    )
    np.testing.assert_allclose(warm - cold, 2 * (one - cold), rtol=1e-5, atol=1e-5)


def test_components_are_sampled_with_their_weights() -> None:
    means = np.arange(3, dtype=np.float32)[:, np.newaxis]
    mixture = GaussianMixture(tiny_models.WEIGHTS, means, np.ones((3, 1, 1), np.float32))
    drawn = mixture.sample(0, offset=0, rows=20_000, temperature=0.0)
    shares = np.bincount(drawn[:, 0].astype(int), minlength=3) / 20_000
    np.testing.assert_allclose(shares, tiny_models.WEIGHTS, atol=0.01)


def test_rows_have_the_mean_and_covariance_of_the_mixture() -> None:
    weights, means, factors = random_arrays(3, 4, seed=5)
    drawn = GaussianMixture(weights, means, factors).sample(0, offset=0, rows=50_000)
    mean = weights @ means
    apart = means - mean
    covariance = np.einsum("k,ki,kj->ij", weights, apart, apart)
    covariance += np.einsum("k,kij,klj->il", weights, factors, factors)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.6)


def test_weights_that_are_rounded_down_leave_no_row_without_a_component() -> None:
    weights = np.array([0.5, 0.5 - 1e-7])

    def uniform(seed: int, domain: int, *, offset: int, rows: int) -> NDArray[np.float64]:
        return np.full(rows, 1 - 2.0**-53)

    means = np.array([[1], [2]], np.float32)
    mixture = GaussianMixture(weights, means, np.ones((2, 1, 1), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(philox, "uniform", uniform)
        assert mixture.sample(0, offset=0, rows=1, temperature=0.0)[0, 0] == 2


# --- valid files ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_models.write_model(tmp_path, "tiny", kind="autoencoder", with_mixture=True)


def manifest_of(folder: Path) -> Manifest:
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))
    return read_manifest(folder)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ManifestError) as refused:
        call()
    reason = str(refused.value)
    assert "\n" not in reason
    assert len(reason) < 500
    return reason


def test_the_prior_of_a_folder_reproduces_its_golden_samples(folder: Path) -> None:
    manifest = manifest_of(folder)
    prior = read_prior(manifest)
    assert isinstance(prior, GaussianMixture)
    assert check_golden_samples(manifest, prior) <= 1e-6
    drawn = prior.sample(4, offset=1, rows=3)
    np.testing.assert_allclose(drawn, tiny_models.mixture(4, 1, 3), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"), [("vae", StandardNormal), ("autoencoder", type(None))]
)
def test_other_priors_need_no_file(tmp_path: Path, kind: str, expected: type) -> None:
    manifest = read_manifest(tiny_models.write_model(tmp_path, "tiny", kind=kind))
    prior = read_prior(manifest)
    assert type(prior) is expected
    assert check_golden_samples(manifest, prior) == 0.0


def test_a_standard_normal_prior_can_have_golden_samples(tmp_path: Path) -> None:
    folder = tiny_models.write_model(tmp_path, "tiny", kind="gan")
    document = tiny_models.read_manifest(folder)
    document["golden"]["sample_seed"] = 5
    tiny_models.write_manifest(folder, document)
    manifest = read_manifest(folder)
    reason = refusal(lambda: check_golden_samples(manifest, read_prior(manifest)))
    assert "seed 5 gives other latents than at export: sample.latents differs by" in reason
    with np.load(folder / "golden.npz") as arrays:
        golden = dict(arrays)
    golden["sample.latents"] = StandardNormal(tiny_models.DIM).sample(5, offset=0, rows=2)
    np.savez(folder / "golden.npz", **golden)
    tiny_models.write_manifest(folder, document)
    manifest = read_manifest(folder)
    assert check_golden_samples(manifest, read_prior(manifest)) == 0.0


def test_factors_of_the_precision_are_detected(folder: Path) -> None:
    """A lower Cholesky factor of the precision matrix passes every check of the values alone."""
    with np.load(folder / "prior.npz") as arrays:
        changed = dict(arrays)
    wide = changed["factors"].astype(np.float64)
    precision = np.linalg.inv(wide @ wide.transpose(0, 2, 1))
    changed["factors"] = np.linalg.cholesky(precision).astype(np.float32)
    np.savez(folder / "prior.npz", **changed)
    manifest = manifest_of(folder)
    assert "sample.latents differs by" in refusal(
        lambda: check_golden_samples(manifest, read_prior(manifest))
    )


def test_golden_samples_of_another_shape_are_detected(folder: Path) -> None:
    with np.load(folder / "golden.npz") as arrays:
        golden = dict(arrays)
    golden["sample.latents"] = golden["sample.latents"][:, :2]
    np.savez(folder / "golden.npz", **golden)
    manifest = manifest_of(folder)
    assert "shape (5, 2), expected (5, 3)" in refusal(
        lambda: check_golden_samples(manifest, read_prior(manifest))
    )


# --- invalid files ----------------------------------------------------------------------------


def _with(name: str, change: Callable[[NDArray[Any]], object]) -> Callable[[Arrays], None]:
    """Change one array in place, or replace it by the returned array."""

    def apply(arrays: Arrays) -> None:
        arrays[name] = arrays[name].copy()
        replaced = change(arrays[name])
        if isinstance(replaced, np.ndarray):
            arrays[name] = replaced

    return apply


def _put(index: tuple[int, ...], value: float) -> Callable[[NDArray[Any]], None]:
    def change(array: NDArray[Any]) -> None:
        array[index] = value

    return change


INVALID: dict[str, tuple[Callable[[Arrays], object], str]] = {
    "no weights": (lambda arrays: arrays.pop("weights"), "weights"),
    "weights in float32": (
        _with("weights", lambda a: a.astype(np.float32)),
        r"weights is float32 [3], expected float64 [3]",
    ),
    "means in float64": (
        _with("means", lambda a: a.astype(np.float64)),
        "means is float64 [3, 3], expected float32 [3, 3]",
    ),
    "one component less": (
        _with("means", lambda a: a[:2]),
        "means is float32 [2, 3], expected float32 [3, 3]",
    ),
    "another dimension": (
        _with("factors", lambda a: a[:, :2, :2].copy()),
        "factors is float32 [3, 2, 2], expected float32 [3, 3, 3]",
    ),
    "pickled objects": (_with("means", lambda a: a.astype(object)), "means is object"),
    "weights that add up to 0.9": (
        _with("weights", _put((0,), 0.4)),
        "weights must add up to 1, but add up to 0.9",
    ),
    "weights that add up to 1.1": (
        _with("weights", _put((0,), 0.6)),
        "weights must add up to 1, but add up to 1.1",
    ),
    "a weight of zero": (
        _with("weights", lambda a: np.array([0.0, 0.5, 0.5])),
        "weights must be above 0, but the lowest is 0",
    ),
    "a negative weight": (
        _with("weights", lambda a: np.array([-0.5, 0.5, 1.0])),
        "weights must be above 0, but the lowest is -0.5",
    ),
    "a weight that is no number": (_with("weights", _put((1,), np.nan)), "weights must be finite"),
    "an infinite mean": (_with("means", _put((1, 1), np.inf)), "means must be finite"),
    "a mean that leaves float32": (_with("means", _put((1, 1), 3e38)), "means must be finite"),
    "a factor that is no number": (
        _with("factors", _put((1, 2, 0), np.nan)),
        "factors must be finite",
    ),
    "a zero on the diagonal": (
        _with("factors", _put((2, 1, 1), 0.0)),
        "factors must have a positive diagonal",
    ),
    "covariances in place of their factors": (
        _with("factors", lambda a: (a @ a.transpose(0, 2, 1)).astype(np.float32)),
        "factors must be lower triangular",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_file_without_a_valid_mixture_refuses_the_model(folder: Path, case: str) -> None:
    change, part = INVALID[case]
    with np.load(folder / "prior.npz") as arrays:
        content: Arrays = dict(arrays)
    change(content)
    np.savez(folder / "prior.npz", **content)  # type: ignore[arg-type]  # numpy's stub is narrow
    reason = refusal(lambda: read_prior(manifest_of(folder)))
    assert reason.startswith("prior.npz is not usable: ")
    assert part in reason


def test_an_array_larger_than_in_the_manifest_is_refused_before_it_is_read(
    folder: Path,
) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
    )
    with (
        zipfile.ZipFile(folder / "prior.npz") as old,
        zipfile.ZipFile(folder / "new.npz", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, header.getvalue() if name == "means.npy" else old.read(name))
    (folder / "new.npz").replace(folder / "prior.npz")
    reason = refusal(lambda: read_prior(manifest_of(folder)))
    assert "means is float32 [1000000000000], expected float32 [3, 3]" in reason


def test_an_array_in_a_newer_npy_format_is_refused(folder: Path) -> None:
    with (
        zipfile.ZipFile(folder / "prior.npz") as old,
        zipfile.ZipFile(folder / "new.npz", "w") as new,
    ):
        for name in old.namelist():
            content = io.BytesIO()
            with old.open(name) as member:
                np.lib.format.write_array(content, np.lib.format.read_array(member), version=(2, 0))
            new.writestr(name, content.getvalue())
    (folder / "new.npz").replace(folder / "prior.npz")
    reason = refusal(lambda: read_prior(manifest_of(folder)))
    assert "weights is in npy format 2.0, expected 1.0" in reason


def test_a_file_that_is_no_archive_is_refused(folder: Path) -> None:
    (folder / "prior.npz").write_bytes(b"spoiled")
    assert "prior.npz is not usable" in refusal(lambda: read_prior(manifest_of(folder)))


def test_a_model_with_an_invalid_mixture_is_refused_with_the_reason(folder: Path) -> None:
    loader = Loader(
        lambda manifest: OnnxEngine(manifest, CPU, threads=1),
        limits=lambda name: Limits(max_batch_rows=4, queue_rows=8),
    )
    ready = loader.load(loader.read("tiny", 1, folder))
    assert ready.state is State.READY
    assert ready.model is not None
    assert isinstance(ready.model.prior, GaussianMixture)
    (folder / "prior.npz").write_bytes(b"spoiled")
    assert "prior.npz has 7 bytes" in loader.read("tiny", 1, folder).reason
    manifest_of(folder)  # now the checksum is that of the spoiled file
    refused = loader.load(loader.read("tiny", 1, folder))
    assert refused.state is State.REFUSED
    assert "prior.npz is not usable" in refused.reason
