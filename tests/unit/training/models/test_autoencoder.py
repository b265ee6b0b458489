import torch

from latentserve_training.losses import cross_entropy, squared_error
from latentserve_training.models.autoencoder import Autoencoder, AutoencoderConfig
from latentserve_training.models.base import OptimizerConfig


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


def test_a_few_images_can_be_learned_by_heart():
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
