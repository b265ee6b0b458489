import pytest
import torch

from latentserve_training.evaluate.suite import evaluate
from latentserve_training.models.autoencoder import Autoencoder, AutoencoderConfig
from latentserve_training.nn.losses import cross_entropy, squared_error
from latentserve_training.optim.optimizer import OptimizerConfig
from latentserve_training.train.loop import train
from latentserve_training.train.run_folder import RunFolder
from latentserve_training.train.trained_model import load_model


def build(**fields):
    torch.manual_seed(0)
    return Autoencoder((3, 8, 12), AutoencoderConfig(latent_dim=5, channels=(8, 16), **fields))


def test_shapes_and_range():
    model, images = build(), torch.rand(7, 3, 8, 12)
    latents = model.encode(images)
    decoded = model.decode(10 * torch.randn(7, 5))
    assert latents.shape == (7, 5)
    assert decoded.shape == (7, 3, 8, 12)
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_squared_error_is_that_of_the_reconstruction():
    model, images = build(), torch.rand(7, 3, 8, 12)
    losses = model.losses(images, torch.Generator())
    expected = squared_error(model.reconstruct(images), images).mean()
    torch.testing.assert_close(losses["loss"], expected)


def test_cross_entropy_is_taken_of_logits():
    model, images = build(reconstruction_loss="cross_entropy"), torch.rand(7, 3, 8, 12)
    losses = model.losses(images, torch.Generator())
    logits = torch.logit(model.reconstruct(images).double())
    expected = cross_entropy(logits, images.double()).mean()
    torch.testing.assert_close(losses["loss"].double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("network", "reconstruction_loss"),
    [
        ({"network": "mlp", "hidden": [32]}, "squared_error"),
        ({"network": "conv", "channels": [8, 16]}, "cross_entropy"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["network"],
)
def test_a_curved_surface_fits_better_than_a_plane(
    network, reconstruction_loss, make_config, image_data, tmp_path
):
    # The images have three degrees of freedom, like the latents, but do not lie in a plane.
    config = make_config(
        model={"channels": [4, 6], "reconstruction_loss": reconstruction_loss} | network,
        optimizer={"learning_rate": 1e-2},
        training={"epochs": 40, "batch_size": 16},
    )
    model = load_model(config, train(config, image_data, RunFolder(tmp_path)))
    metric = evaluate(model, image_data)["test_mse"]
    assert metric.baseline_name == "PCA-3"
    assert metric.value < 0.6 * metric.baseline_value


def test_the_model_can_overfit_a_few_images():
    model = build()
    # One colour for each half: the network is small, and this is not about its capacity.
    coarse = torch.rand(4, 3, 1, 2, generator=torch.Generator().manual_seed(1))
    images = torch.nn.functional.interpolate(coarse, scale_factor=(8, 6))
    config = OptimizerConfig(learning_rate=3e-3)
    optimizers, generator = model.optimizers(config), torch.Generator()
    before = model.training_step(images, optimizers, generator, config)["loss"]
    for _ in range(300):
        after = model.training_step(images, optimizers, generator, config)["loss"]
    assert after < 0.05 * before
