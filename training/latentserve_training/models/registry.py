"""Registry of the kinds of model: name, configuration class and model class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from latentserve_training.models.autoencoder import Autoencoder, AutoencoderConfig
from latentserve_training.models.base import LatentModel
from latentserve_training.models.contractive import ContractiveAutoencoder, ContractiveConfig
from latentserve_training.models.denoising import DenoisingAutoencoder, DenoisingConfig
from latentserve_training.models.gan import GAN, GANConfig
from latentserve_training.models.linear import LinearAutoencoder, LinearConfig
from latentserve_training.models.sparse import SparseAutoencoder, SparseConfig
from latentserve_training.models.vae import VAE, VAEConfig
from latentserve_training.models.vae_gan import VAEGAN, VAEGANConfig
from latentserve_training.pixels import ImageShape


@dataclass(frozen=True)
class Kind:
    """Configuration class and model class of a kind, and its reference model if it has one."""

    config: type[Any]
    build: Callable[[ImageShape, Any], LatentModel]
    # Returns the configuration, of this kind or another, of a reference model that is trained as
    # a baseline; None for kinds whose baselines have a closed form.
    reference: Callable[[Any], Any] | None = None


KINDS = {
    Autoencoder.kind: Kind(AutoencoderConfig, Autoencoder),
    ContractiveAutoencoder.kind: Kind(
        ContractiveConfig, ContractiveAutoencoder, ContractiveConfig.without_penalty
    ),
    DenoisingAutoencoder.kind: Kind(DenoisingConfig, DenoisingAutoencoder),
    GAN.kind: Kind(GANConfig, GAN),
    LinearAutoencoder.kind: Kind(LinearConfig, LinearAutoencoder),
    SparseAutoencoder.kind: Kind(SparseConfig, SparseAutoencoder),
    VAE.kind: Kind(VAEConfig, VAE),
    VAEGAN.kind: Kind(VAEGANConfig, VAEGAN, VAEGANConfig.plain_vae),
}


def kind_of(config: Any) -> str:
    """The name of the kind to which a ``[model]`` table belongs."""
    return next(name for name, kind in KINDS.items() if type(config) is kind.config)
