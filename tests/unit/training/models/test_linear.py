import math

import numpy as np
import pytest
import torch

from latentserve_training.data import ImageData
from latentserve_training.evaluate.suite import evaluate
from latentserve_training.models.linear import LinearAutoencoder, LinearConfig
from latentserve_training.pixels import to_float
from latentserve_training.train.loop import train
from latentserve_training.train.run_folder import RunFolder

DIM = 3


@pytest.fixture(scope="module")
def images():
    """uint8 images with a gap after the third eigenvalue, which makes the subspace unique."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(48, DIM, generator=generator)).Q
    codes = torch.randn(640, DIM, generator=generator) * torch.tensor([60.0, 50.0, 40.0])
    noise = 5 * torch.randn(640, 48, generator=generator)
    return (128 + codes @ basis.T + noise).clamp(0, 255).byte().reshape(-1, 1, 6, 8)


def principal_directions(images):
    rows = to_float(images).flatten(1).double()
    return torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[:DIM].T


def largest_angle_degrees(first, second):
    """Between two subspaces, each given by the columns of a matrix."""
    bases = [torch.linalg.qr(matrix.double()).Q for matrix in (first, second)]
    # From the sine: a cosine of nearly 1 has lost the digits that tell a small angle.
    outside = bases[0] - bases[1] @ (bases[1].T @ bases[0])
    return math.degrees(math.asin(min(1.0, torch.linalg.matrix_norm(outside, 2).item())))


def fitted(images, fit):
    model = LinearAutoencoder((1, 6, 8), LinearConfig(latent_dim=DIM, fit=fit))
    model.initialise_from_data(images)
    return model


def test_the_closed_form_is_the_singular_value_decomposition(images):
    model, expected = fitted(images, "closed_form"), principal_directions(images)
    torch.testing.assert_close(model.encoder.weight, model.decoder.weight.T)
    assert largest_angle_degrees(model.decoder.weight, expected) < 0.01
    codes = model.encode(to_float(images))
    torch.testing.assert_close(codes.mean(0), torch.zeros(DIM), atol=1e-5, rtol=0)
    covariance = torch.cov(codes.T)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-5
    assert (covariance.diag().diff() < 0).all(), "sorted by variance"


@pytest.mark.parametrize(
    ("fit", "epochs", "mse_tolerance", "angle_degrees"),
    [("adam", 60, 1e-3, 1.0), ("closed_form", 1, 1e-5, 0.01)],
)
def test_both_fits_end_where_pca_does(
    fit, epochs, mse_tolerance, angle_degrees, images, tmp_path, make_config
):
    # Trained and measured on the same images: there, nothing linear can be better than PCA.
    data = ImageData(images, images, images, "plane", "0" * 64)
    config = make_config(
        "linear",
        model={"fit": fit},
        optimizer={"learning_rate": 1e-2},
        training={"epochs": epochs},
    )
    best = train(config, data, RunFolder(tmp_path))
    model = fitted(images, fit)
    model.load_state_dict(best.model)
    metric = evaluate(model, data)["test_mse_unclipped"]
    assert metric.value == pytest.approx(metric.baseline_value, rel=mse_tolerance)
    expected = principal_directions(images)
    assert largest_angle_degrees(model.decoder.weight, expected) < angle_degrees
    assert largest_angle_degrees(model.encoder.weight.T, expected) < angle_degrees


def test_only_served_images_are_clipped(images):
    model, latents = fitted(images, "closed_form"), 100 * torch.randn(5, DIM)
    unclipped = model.decode_unclipped(latents)
    assert unclipped.min() < 0
    assert unclipped.max() > 1
    torch.testing.assert_close(model.decode(latents), unclipped.clamp(0, 1))
    assert model.losses(to_float(images), torch.Generator())["loss"].requires_grad


def test_the_mean_image_is_inside(images):
    model = fitted(images, "adam")
    zeros = torch.zeros(1, DIM)
    expected = to_float(images).mean(0, keepdim=True)
    torch.testing.assert_close(model.decode(zeros), expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(model.encode(expected).detach(), 0, atol=1e-5)


@pytest.mark.parametrize("latent_dim", [0, 49])
def test_impossible_sizes_are_refused(latent_dim):
    with pytest.raises(ValueError, match="latent_dim"):
        LinearAutoencoder((1, 6, 8), LinearConfig(latent_dim=latent_dim))
