"""What every kind of model gives to the loop, the evaluation and the export.

A new kind is one file that subclasses :class:`LatentModel` and one line in ``registry.py``. Kinds
with a single loss implement :meth:`LatentModel.losses`; adversarial kinds also override
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
SAMPLE_METRICS = (  # keys of evaluate.METRICS for kinds with a prior
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
    title: str  # how the kind is called in a sentence
    # Why no mixture can be fitted to the codes of this kind; "" where one can.
    sampler_unsupported_reason: ClassVar[str] = ""
    # These three are the kind's, until a mixture gives the model a prior or its configuration says
    # what else to measure.
    prior: str = "none"  # what Sample draws from: "standard_normal", "gaussian_mixture" or "none"
    metrics: tuple[str, ...] = ("test_mse",)  # what evaluate.metric_function takes
    plots: tuple[str, ...] = ("reconstructions", "latents", "interpolation")  # of figures.FIGURES

    def __init__(self, image_shape: ImageShape, latent_dim: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.latent_dim = latent_dim
        self.mixture: LatentMixture | None = None

    def set_mixture(self, mixture: LatentMixture) -> None:
        """Sample from a mixture that was fitted to the codes; its figures come on top."""
        self.mixture = mixture
        self.prior = "gaussian_mixture"
        self.metrics = (*type(self).metrics, "test_code_log_likelihood_nats")
        self.plots = (*type(self).plots, "samples")

    def initialise_from_data(self, images: Tensor) -> None:
        """Look at the training images, uint8 ``[n, c, h, w]``, once before the first step.

        For what is computed and not learned, such as a mean; it belongs into buffers or weights,
        which the checkpoint keeps.
        """
        del images  # most kinds learn everything

    @abstractmethod
    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars for one batch; ``"loss"`` is minimised, and selects the best epoch.

        Random numbers come from ``generator`` (on the CPU) alone, so that a run repeats.
        """

    @property
    def nonzero_latents_per_image(self) -> int:
        """How many numbers a code holds that are not zero: what PCA gets as well, as a baseline."""
        return self.latent_dim

    @property
    def has_encoder(self) -> bool:
        """Whether images have codes: a generator alone draws them only."""
        return type(self).encode is not LatentModel.encode

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]`` in [0, 1]."""

    def decode_unclipped(self, latents: Tensor) -> Tensor:
        """Latents to images before they are clipped to [0, 1], where the kind clips them."""
        return self.decode(latents)

    def encode(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images ``[n, c, h, w]`` to the code's mean, and its log-variance if there is one."""
        raise NotImplementedError(f"a model of kind {self.kind} has no encoder")

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images to their reconstructions, both ``[n, c, h, w]``, where the kind has an encoder."""
        raise NotImplementedError(f"a model of kind {self.kind} has no encoder")

    @abstractmethod
    def graphs(self) -> tuple[Graph, ...]:
        """The ONNX graphs to export."""

    def golden_input(
        self, operation: str, images: Tensor, latents: Tensor, generator: torch.Generator
    ) -> Tensor:
        """A realistic input of an operation, for the outputs that the server repeats.

        Args:
            operation: One of :meth:`graphs` but ``sample``, whose latents a seed gives.
            images: Test images, ``[n, c, h, w]``.
            latents: Their latents, ``[n, d]``.
            generator: For what has to be drawn.
        """
        return latents if operation == "decode" else images

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The code's mean and, where the encoder gives one, its log-variance; each ``[n, d]``."""
        encoded = self.encode(images)
        return encoded if isinstance(encoded, tuple) else (encoded, None)

    def probe_features(self, images: Tensor) -> Tensor:
        """What the linear probe classifies, ``[n, d]``: the mean, unless a kind says more."""
        return self.posterior(images)[0]

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``[count, d]`` from the prior, on the CPU, as Sample does.

        Raises:
            ValueError: If the model has no prior.
        """
        if self.mixture is not None:
            return self.mixture.sample(count, generator)
        if self.prior != "standard_normal":
            raise ValueError(f"a model of kind {self.kind} has no prior to draw from")
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
        """The manifest's ``likelihood``: p(x|z), or None where there is none."""
        return None

    def optimizers(self, config: OptimizerConfig) -> dict[str, torch.optim.Optimizer]:
        """The optimisers by name; the loop schedules and saves them."""
        betas = (config.beta1, config.beta2)
        return {"model": torch.optim.Adam(self.parameters(), config.learning_rate, betas)}

    def training_step(
        self,
        images: Tensor,
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
        config: OptimizerConfig,
    ) -> dict[str, Tensor]:
        """Take one step on one batch and give its losses.

        Raises:
            NonFiniteLossError: If a loss or a gradient is NaN or infinite; no weight has changed.
        """
        losses = self.losses(images, generator)
        minimise(losses["loss"], optimizers["model"], config.max_gradient_norm, losses)
        return {name: value.detach() for name, value in losses.items()}


def autoencoder_graphs(model: LatentModel, code: tuple[str, ...] = ("mean",)) -> tuple[Graph, ...]:
    """Encode, decode and reconstruct; ``code`` names what encode gives.

    With a prior, decode also serves Sample: the latents are the server's to draw.
    Reconstruct is a graph of its own, so that latents need not leave the device.
    """
    decoding = ("decode",) if model.prior == "none" else ("decode", "sample")
    return (
        Graph("encode.onnx", GraphModule(model, "encode"), "images", code, ("encode",)),
        Graph("decode.onnx", GraphModule(model, "decode"), "latents", ("images",), decoding),
        Graph(
            "reconstruct.onnx",
            GraphModule(model, "reconstruct"),
            "images",
            ("reconstruction",),
            ("reconstruct",),
        ),
    )
