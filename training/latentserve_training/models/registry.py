"""The kinds of model: a name, a config class and a model class each."""

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
    """A kind's config class, the model that is built from it, and what that is measured against."""

    config: type[Any]
    build: Callable[[ImageShape, Any], LatentModel]
    # The config, of this kind or another, of a model to train beside it for comparison, where a
    # closed form is no match.
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
    """The kind whose ``[model]`` table this is."""
    return next(name for name, kind in KINDS.items() if type(config) is kind.config)
