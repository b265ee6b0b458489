"""Base class of all kinds of model, used by training, evaluation and export.

A new kind needs one file with a subclass of :class:`LatentModel` and one line in ``registry.py``.
Kinds with a single loss implement :meth:`LatentModel.losses`; adversarial kinds also override
:meth:`LatentModel.optimizers` and :meth:`LatentModel.training_step`.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentserve_training.graphs.spec import Graph, GraphModule
from latentserve_training.nn.gaussian_mixture import LatentMixture
from latentserve_training.optim.optimizer import OptimizerConfig, minimise
from latentserve_training.pixels import ImageShape, to_float

VALIDATION_BATCH = 500
SAMPLE_METRICS = (  # keys of evaluate.suite.METRICS for models with a prior
    "test_frechet_distance",
    "test_precision",
    "test_recall",
    "test_density",
    "test_coverage",
    "test_classes_covered",
    "test_histogram_kl",
)


class LatentModel(nn.Module, ABC):
    """A model of images in [0, 1], float ``[n, c, h, w]``, with latents ``[n, latent_dim]``."""

    kind: ClassVar[str]
    title: str  # name of the kind in a sentence
    # Why no mixture can be fitted to the latents of this kind; "" if it can.
    sampler_unsupported_reason: ClassVar[str] = ""
    # Defaults of the kind; a mixture or the configuration may change them for an instance.
    prior: str = "none"  # distribution of Sample: "standard_normal", "gaussian_mixture" or "none"
    metrics: tuple[str, ...] = ("test_mse",)  # names for evaluate.suite.metric_function
    plots: tuple[str, ...] = ("reconstructions", "latents", "interpolation")  # in report.registry

    def __init__(self, image_shape: ImageShape, latent_dim: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.latent_dim = latent_dim
        self.mixture: LatentMixture | None = None

    def set_mixture(self, mixture: LatentMixture) -> None:
        """Make a mixture that was fitted to the latents the prior; add its metric and plot."""
        self.mixture = mixture
        self.prior = "gaussian_mixture"
        self.metrics = (*type(self).metrics, "test_code_log_likelihood_nats")
        self.plots = (*type(self).plots, "samples")

    def initialise_from_data(self, images: Tensor) -> None:
        """Compute constants from the training images, uint8 ``[n, c, h, w]``, before training.

        An example is a mean image. Results must be buffers or weights, which the checkpoint stores.
        """
        del images  # most kinds need no such constants

    @abstractmethod
    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars for one batch; ``"loss"`` is minimised and selects the best epoch.

        All random numbers must come from ``generator`` (on the CPU), so that runs are reproducible.
        """

    @property
    def nonzero_latents_per_image(self) -> int:
        """The number of latents of an image that are not zero; the dimension of PCA baselines."""
        return self.latent_dim

    @property
    def has_encoder(self) -> bool:
        """Whether images can be encoded; a generator can only sample and decode."""
        return type(self).encode is not LatentModel.encode

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]`` in [0, 1]."""

    def decode_unclipped(self, latents: Tensor) -> Tensor:
        """Latents to images before clipping to [0, 1], for kinds that clip them."""
        return self.decode(latents)

    def encode(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images ``[n, c, h, w]`` to latents, or to mean and log-variance of the posterior."""
        raise NotImplementedError(f"a model of kind {self.kind} has no encoder")

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images to their reconstructions, both ``[n, c, h, w]``, for kinds with an encoder."""
        raise NotImplementedError(f"a model of kind {self.kind} has no encoder")

    @abstractmethod
    def graphs(self) -> tuple[Graph, ...]:
        """The ONNX graphs to export."""

    def golden_input(
        self, operation: str, images: Tensor, latents: Tensor, generator: torch.Generator
    ) -> Tensor:
        """A realistic input of an operation, for the golden outputs that the server checks.

        Args:
            operation: An operation of :meth:`graphs` except ``sample``, whose latents depend on a
                seed.
            images: Test images, ``[n, c, h, w]``.
            latents: Latents of these images, ``[n, d]``.
            generator: Source of random numbers.
        """
        return latents if operation == "decode" else images

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance of the posterior, each ``[n, d]``; None without a log-variance."""
        encoded = self.encode(images)
        return encoded if isinstance(encoded, tuple) else (encoded, None)

    def probe_features(self, images: Tensor) -> Tensor:
        """Features for the linear probe, ``[n, d]``: the mean, unless a kind overrides it."""
        return self.posterior(images)[0]

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Sample ``[count, d]`` from the prior, on the CPU.

        Raises:
            ValueError: If the model has no prior.
        """
        if self.mixture is not None:
            return self.mixture.sample(count, generator)
        if self.prior != "standard_normal":
            raise ValueError(f"a model of kind {self.kind} has no prior to sample from")
        return torch.randn(count, self.latent_dim, generator=generator)

    def validation_losses(self, images: Tensor, seed: int) -> dict[str, float]:
        """Mean losses over uint8 images; ``"loss"`` selects the best epoch, the lower the better.

        The model is in evaluation mode, nothing is differentiated, and the noise is the same every
        time, so that epochs compare. Kinds whose loss says nothing of their quality override this.
        """
        generator = torch.Generator().manual_seed(seed)
        device = next(self.parameters()).device
        sums: dict[str, float] = defaultdict(float)
        for batch in torch.split(images, VALIDATION_BATCH):
            for name, value in self.losses(to_float(batch).to(device), generator).items():
                sums[name] += value.item() * len(batch)
        return {name: value / len(images) for name, value in sums.items()}

    def likelihood(self) -> dict[str, Any] | None:
        """The field ``likelihood`` of the manifest, p(x|z); None for models without one."""
        return None

    def optimizers(self, config: OptimizerConfig) -> dict[str, torch.optim.Optimizer]:
        """The optimisers by name; the training loop schedules and saves them."""
        betas = (config.beta1, config.beta2)
        return {"model": torch.optim.Adam(self.parameters(), config.learning_rate, betas)}

    def training_step(
        self,
        images: Tensor,
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
        config: OptimizerConfig,
    ) -> dict[str, Tensor]:
        """Take one step on one batch and return its losses.

        Raises:
            NonFiniteLossError: If a loss or a gradient is NaN or infinite; no weight has changed.
        """
        losses = self.losses(images, generator)
        minimise(losses["loss"], optimizers["model"], config.max_gradient_norm, losses)
        return {name: value.detach() for name, value in losses.items()}


def autoencoder_graphs(
    model: LatentModel, encode_outputs: tuple[str, ...] = ("mean",)
) -> tuple[Graph, ...]:
    """The graphs of encode, decode and reconstruct; ``encode_outputs`` names those of encode.

    If the model has a prior, the graph of decode also serves Sample: the server samples the
    latents. Reconstruct has a separate graph, so that latents need not leave the device.
    """
    decoding = ("decode",) if model.prior == "none" else ("decode", "sample")
    return (
        Graph("encode.onnx", GraphModule(model, "encode"), "images", encode_outputs, ("encode",)),
        Graph("decode.onnx", GraphModule(model, "decode"), "latents", ("images",), decoding),
        Graph(
            "reconstruct.onnx",
            GraphModule(model, "reconstruct"),
            "images",
            ("reconstruction",),
            ("reconstruct",),
        ),
    )
