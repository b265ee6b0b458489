"""The kinds of model: a name, a config class and a model class each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from latentserve_training.models.autoencoder import Autoencoder, AutoencoderConfig
from latentserve_training.models.base import ImageShape, LatentModel
from latentserve_training.models.denoising import DenoisingAutoencoder, DenoisingConfig
from latentserve_training.models.vae import VAE, VAEConfig


@dataclass(frozen=True)
class Kind:
    """A kind's config class and the model that is built from it."""

    config: type[Any]
    build: Callable[[ImageShape, Any], LatentModel]


KINDS = {
    Autoencoder.kind: Kind(AutoencoderConfig, Autoencoder),
    DenoisingAutoencoder.kind: Kind(DenoisingConfig, DenoisingAutoencoder),
    VAE.kind: Kind(VAEConfig, VAE),
}
