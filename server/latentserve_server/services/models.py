"""The RPCs of ModelService, independent of the transport."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from google.protobuf.message import Message

from latentserve.v1 import model_service_pb2 as pb
from latentserve_server.codec.request_parser import parse
from latentserve_server.manifest.reader import Manifest
from latentserve_server.repository.lifecycle import Action, Outcome, Repository
from latentserve_server.repository.model_version import ModelVersion, State
from latentserve_server.services.call import Call, Done, Reply, UnaryMethod

MODEL_SERVICE = "latentserve.v1.ModelService"

_STATES = {
    State.LOADING: pb.Model.STATE_LOADING,
    State.READY: pb.Model.STATE_READY,
    State.REFUSED: pb.Model.STATE_REFUSED,
}

_ACTIONS = {
    Action.UNCHANGED: pb.ReloadOutcome.ACTION_UNCHANGED,
    Action.LOADED: pb.ReloadOutcome.ACTION_LOADED,
    Action.REFUSED: pb.ReloadOutcome.ACTION_REFUSED,
    Action.REMOVED: pb.ReloadOutcome.ACTION_REMOVED,
}

_OPERATIONS = {
    "encode": pb.OPERATION_ENCODE,
    "decode": pb.OPERATION_DECODE,
    "reconstruct": pb.OPERATION_RECONSTRUCT,
    "denoise": pb.OPERATION_DENOISE,
    "sample": pb.OPERATION_SAMPLE,
}


class _CompletedCall:
    """A call that completes before it can be cancelled."""

    def cancel(self) -> None:
        """Do nothing."""


class _ReloadCall:
    """A queued or running reload. A running one is not interrupted."""

    def __init__(self) -> None:
        self.cancelled = False
        self.future: Future[None] | None = None

    def cancel(self) -> None:
        """Drop a queued reload, and the reply of a running one."""
        self.cancelled = True
        if self.future is not None:
            self.future.cancel()


class ModelService:
    """Implements ListModels, GetModel and ReloadModels with the repository.

    Args:
        repository: the models.
        max_request_rows, max_stream_rows: the limits to report.
        reload: reloads the models of these names, or all if there are none; by default
            `repository.reload`.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        max_request_rows: int,
        max_stream_rows: int,
        reload: Callable[[Collection[str]], list[Outcome]] | None = None,
    ) -> None:
        self._repository = repository
        self._reload = reload or repository.reload
        # A separate thread: a reload takes seconds to minutes, and must not delay other work.
        self._reloads = ThreadPoolExecutor(1, thread_name_prefix="reload")
        self._limits = pb.Limits(
            max_request_rows=max_request_rows,
            max_stream_rows=max_stream_rows,
        )

    def unary_methods(self) -> dict[str, UnaryMethod]:
        """Return the unary methods by their RPC name."""
        return {
            "ListModels": self.list_models,
            "GetModel": self.get_model,
            "ReloadModels": self.reload_models,
        }

    def list_models(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Return all versions of all models."""
        parse(pb.ListModelsRequest, request)
        response = pb.ListModelsResponse(
            models=[self._describe(entry) for entry in self._repository.versions()],
            default_model=self._repository.default_model,
        )
        return _complete(response, done)

    def get_model(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Return one version of one model."""
        message = parse(pb.GetModelRequest, request)
        entry = self._repository.find(message.model.name, message.model.version)
        return _complete(pb.GetModelResponse(model=self._describe(entry)), done)

    def reload_models(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Reload the model folder on a separate thread, one reload after the other."""
        names = frozenset(parse(pb.ReloadModelsRequest, request).names)
        call = _ReloadCall()

        def reload() -> None:
            outcome: Future[bytes] = Future()
            try:
                outcome.set_result(_reload_reply(self._reload(names)))
            except Exception as error:  # noqa: BLE001 - raised where the reply is built
                outcome.set_exception(error)
            if not call.cancelled:
                done(Reply(outcome.result))

        call.future = self._reloads.submit(reload)
        return call

    def _describe(self, entry: ModelVersion) -> pb.Model:
        model = pb.Model.FromString(entry.description)
        model.name = entry.name
        model.version = entry.version
        model.state = _STATES[entry.state]
        model.reason = entry.reason
        model.provider = entry.model.provider if entry.model else ""
        if entry.manifest is not None:
            model.limits.CopyFrom(self._limits)
            model.limits.max_batch_rows = entry.max_batch_rows
        return model


def describe(manifest: Manifest) -> bytes:
    """Return the part of a serialised Model that a manifest determines.

    Raises ValueError or TypeError for a manifest with a value that the message cannot hold.
    """
    model = pb.Model(
        digest=manifest.digest,
        kind=manifest.kind,
        description=manifest.description,
        image=pb.ImageSpec(
            channels=manifest.image.channels,
            height=manifest.image.height,
            width=manifest.image.width,
        ),
        latent=pb.LatentSpec(
            dim=manifest.latent_dim,
            prior=manifest.prior,
            has_log_variance=manifest.has_log_variance,
            mixture_components=manifest.mixture.components if manifest.mixture else 0,
        ),
        operations=sorted(_OPERATIONS[name] for name in manifest.operations),
        metrics=[
            pb.Metric(
                name=metric.name,
                value=metric.value,
                unit=metric.unit,
                baseline=metric.baseline,
                baseline_name=metric.baseline_name,
                samples=metric.samples,
                estimator=metric.estimator,
            )
            for metric in manifest.metrics
        ],
    )
    if manifest.likelihood_family:
        model.likelihood.family = manifest.likelihood_family
        model.likelihood.sigma = manifest.likelihood_sigma
    return model.SerializeToString()


def _reload_reply(outcomes: Iterable[Outcome]) -> bytes:
    response = pb.ReloadModelsResponse(
        outcomes=[
            pb.ReloadOutcome(
                name=outcome.name,
                version=outcome.version,
                action=_ACTIONS[outcome.action],
                reason=outcome.reason,
            )
            for outcome in outcomes
        ]
    )
    return response.SerializeToString()


def _complete(response: Message, done: Done) -> Call:
    done(Reply(response.SerializeToString))
    return _CompletedCall()
