"""Model descriptions of the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from latentserve.v1 import model_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """Image shape of a model."""

    channels: int  # 1 (grey) or 3 (RGB)
    height: int  # pixels
    width: int  # pixels


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """Latents of a model."""

    dim: int  # values per latent vector
    prior: str  # "standard_normal", "gaussian_mixture", or "none" if the model cannot sample
    has_log_variance: bool  # whether encode returns it and accepts a seed
    mixture_components: int = 0  # of a gaussian_mixture; 0 for other priors


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Likelihood p(x|z), with the decoded image as its mean."""

    family: str  # "gaussian" or "bernoulli"
    sigma: float  # standard deviation per pixel of [0, 1] images; 0 unless gaussian


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one call to a model."""

    max_request_rows: int  # images or latents in one request
    max_stream_rows: int  # images in one stream
    max_batch_rows: int  # rows of one batch; larger requests run in several batches


@dataclass(frozen=True, slots=True)
class Metric:
    """Quality metric, measured at the export of the model."""

    name: str
    value: float  # in `unit`
    unit: str  # for example "dB"
    baseline: float | None  # comparison value, in `unit`
    baseline_name: str  # for example "PCA-32"
    samples: int  # images in the measurement
    estimator: str  # method of the measurement


@dataclass(frozen=True, slots=True)
class Model:
    """Description of one model version."""

    name: str
    version: int
    state: str  # "ready", "loading" or "refused"
    reason: str  # reason of a refusal; empty otherwise
    digest: str  # SHA-256 of its manifest
    kind: str  # for example "autoencoder", "denoising", "vae"
    description: str  # one sentence
    image: ImageSpec
    latent: LatentSpec
    operations: tuple[str, ...]  # some of "encode", "decode", "reconstruct", "denoise", "sample"
    likelihood: Likelihood | None  # None if the model has no likelihood
    limits: Limits
    provider: str  # ONNX Runtime execution provider; empty until loaded
    metrics: tuple[Metric, ...]

    @property
    def ref(self) -> str:
        """Value of the `model` argument for exactly this version: NAME:VERSION."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class ModelList:
    """All versions of all models, sorted by name, then by descending version."""

    models: tuple[Model, ...]
    default: str  # model of calls without a model name; empty if the server has no default

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """Outcome of a reload for one model version."""

    name: str
    version: int
    action: str  # "unchanged", "loaded", "refused" or "removed"
    reason: str  # reason of a refusal; empty otherwise


def from_list(reply: pb.ListModelsResponse) -> ModelList:
    """Return the models of a ListModels reply."""
    return ModelList(tuple(from_model(model) for model in reply.models), reply.default_model)


def from_model(model: pb.Model) -> Model:
    """Return the description of one model message."""
    return Model(
        name=model.name,
        version=model.version,
        state=_enum(pb.Model.State, "STATE_", model.state),
        reason=model.reason,
        digest=model.digest,
        kind=model.kind,
        description=model.description,
        image=ImageSpec(model.image.channels, model.image.height, model.image.width),
        latent=LatentSpec(
            model.latent.dim,
            model.latent.prior,
            model.latent.has_log_variance,
            model.latent.mixture_components,
        ),
        operations=tuple(_enum(pb.Operation, "OPERATION_", value) for value in model.operations),
        likelihood=(
            Likelihood(model.likelihood.family, model.likelihood.sigma)
            if model.HasField("likelihood")
            else None
        ),
        limits=Limits(
            model.limits.max_request_rows,
            model.limits.max_stream_rows,
            model.limits.max_batch_rows,
        ),
        provider=model.provider,
        metrics=tuple(
            Metric(
                name=metric.name,
                value=metric.value,
                unit=metric.unit,
                baseline=metric.baseline if metric.HasField("baseline") else None,
                baseline_name=metric.baseline_name,
                samples=metric.samples,
                estimator=metric.estimator,
            )
            for metric in model.metrics
        ),
    )


def from_reload(reply: pb.ReloadModelsResponse) -> tuple[ReloadOutcome, ...]:
    """Return the outcomes of a ReloadModels reply."""
    return tuple(
        ReloadOutcome(
            outcome.name,
            outcome.version,
            _enum(pb.ReloadOutcome.Action, "ACTION_", outcome.action),
            outcome.reason,
        )
        for outcome in reply.outcomes
    )


def _enum(
    kind: type[pb.Model.State | pb.Operation | pb.ReloadOutcome.Action], prefix: str, value: int
) -> str:
    """Return the lower-case name of an enum value, or its number if it is unknown here."""
    try:
        name: str = kind.Name(value)
    except ValueError:
        return str(value)
    return name.removeprefix(prefix).lower()
