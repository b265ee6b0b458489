"""Tests of each RPC of ModelService, without a transport."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

import tiny_models
from latentserve.v1 import model_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server.engine.device import CPU, CPU_PROVIDER
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.errors import InvalidRequest, ModelNotFound
from latentserve_server.manifest.reader import read_manifest
from latentserve_server.model_limits import Limits
from latentserve_server.repository.lifecycle import Outcome, Repository
from latentserve_server.repository.loader import Loader
from latentserve_server.services.call import Reply
from latentserve_server.services.models import ModelService, describe

R = TypeVar("R", bound=Message)
TIMEOUT_S = 10.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Model a with versions 1, 2 and a refused 3, and model b, a GAN."""
    for version in (1, 2, 3):
        tiny_models.write_model(tmp_path, "a", kind="vae", version=version)
    (tmp_path / "a" / "3" / "golden.npz").write_bytes(b"spoiled")
    tiny_models.write_model(tmp_path, "b", kind="gan")
    return tmp_path


Serve = Callable[..., ModelService]


@pytest.fixture
def serve(root: Path) -> Iterator[Serve]:
    made: list[Repository] = []

    def make(*, load: bool = True, default_model: str = "") -> ModelService:
        repository = Repository(
            root,
            Loader(
                lambda manifest: OnnxEngine(manifest, CPU, threads=1),
                limits=lambda name: Limits(16 if name == "a" else 8, queue_rows=64),
                describe=describe,
            ),
            default_model=default_model,
            max_versions=10,
        )
        made.append(repository)
        repository.scan()
        if load:
            repository.load_all()
        return ModelService(repository, max_request_rows=20, max_stream_rows=2**40)

    yield make
    for repository in made:
        repository.close(timeout_s=5.0)


def call(method: Any, request: Message, response: type[R]) -> R:
    """Call a method that completes before it returns."""
    replies: list[Reply] = []
    handle = method(request.SerializeToString(), None, replies.append)
    handle.cancel()  # has no effect on a completed call
    (reply,) = replies
    return response.FromString(reply.build())


def listing(service: ModelService) -> pb.ListModelsResponse:
    return call(service.list_models, pb.ListModelsRequest(), pb.ListModelsResponse)


def described(service: ModelService, name: str, version: int = 0) -> pb.Model:
    request = pb.GetModelRequest(model=tensor_pb2.ModelRef(name=name, version=version))
    return call(service.get_model, request, pb.GetModelResponse).model


def test_all_versions_are_listed_by_name_then_from_high_to_low(serve: Serve) -> None:
    found = [(model.name, model.version) for model in listing(serve()).models]
    assert found == [("a", 3), ("a", 2), ("a", 1), ("b", 1)]


def test_a_refused_version_is_listed_with_its_reason(serve: Serve) -> None:
    refused, *others = listing(serve()).models
    assert refused.state == pb.Model.STATE_REFUSED
    assert "golden.npz" in refused.reason
    assert refused.provider == ""
    for model in others:
        assert (model.state, model.reason) == (pb.Model.STATE_READY, "")
        assert model.provider == CPU_PROVIDER


def test_a_loading_version_is_listed_as_loading(serve: Serve) -> None:
    models = listing(serve(load=False)).models
    assert models[1].state == pb.Model.STATE_LOADING
    assert models[1].provider == ""
    assert models[1].kind == "vae"


@pytest.mark.parametrize(("configured", "listed"), [("", ""), ("b", "b")])
def test_the_default_model_is_listed_only_if_there_is_one(
    serve: Serve, configured: str, listed: str
) -> None:
    assert listing(serve(default_model=configured)).default_model == listed


def test_a_model_is_described_from_its_manifest(serve: Serve, root: Path) -> None:
    model = described(serve(), "a", 2)
    assert model.digest == read_manifest(root / "a" / "2").digest
    assert (model.kind, model.description) == ("vae", "A tiny vae for tests.")
    size = tiny_models.SIZE
    assert (model.image.channels, model.image.height, model.image.width) == (1, size, size)
    assert (model.latent.dim, model.latent.prior) == (tiny_models.DIM, "standard_normal")
    assert model.latent.has_log_variance
    assert (model.likelihood.family, model.likelihood.sigma) == ("gaussian", 0.1)
    assert set(model.operations) == {
        pb.OPERATION_ENCODE,
        pb.OPERATION_DECODE,
        pb.OPERATION_RECONSTRUCT,
        pb.OPERATION_SAMPLE,
    }
    (metric,) = model.metrics
    assert metric == pb.Metric(
        name="test_mse",
        value=0.25,
        unit="squared error per pixel",
        baseline=0.5,
        baseline_name="PCA-3",
        samples=2,
        estimator="mean over two random images",
    )


def test_the_limits_of_the_server_are_part_of_every_description(serve: Serve) -> None:
    limits = described(serve(), "b").limits
    assert limits == pb.Limits(max_request_rows=20, max_stream_rows=2**40, max_batch_rows=8)


@pytest.mark.parametrize("load", [True, False])
def test_the_rows_of_a_batch_are_those_of_the_model(serve: Serve, load: bool) -> None:
    service = serve(load=load)
    models = [model for model in listing(service).models if model.digest]
    found = {(model.name, model.version): model.limits.max_batch_rows for model in models}
    assert found == {("a", 2): 16, ("a", 1): 16, ("b", 1): 8}


def test_absent_properties_are_omitted(serve: Serve, root: Path) -> None:
    document = tiny_models.read_manifest(root / "b" / "1")
    document["metrics"]["test_mse"]["baseline"] = None
    tiny_models.write_manifest(root / "b" / "1", document)
    model = described(serve(), "b")
    assert not model.HasField("likelihood")
    assert not model.latent.has_log_variance
    assert not model.metrics[0].HasField("baseline")
    assert model.metrics[0].baseline_name == ""


def test_version_zero_is_the_highest_that_is_ready(serve: Serve) -> None:
    assert described(serve(), "a").version == 2


def test_a_refused_version_is_found_by_its_number(serve: Serve) -> None:
    model = described(serve(), "a", 3)
    assert model.state == pb.Model.STATE_REFUSED
    assert "golden.npz" in model.reason


def test_no_name_means_the_default_model(serve: Serve) -> None:
    assert described(serve(default_model="b"), "").name == "b"


@pytest.mark.parametrize(("name", "version"), [("c", 0), ("a", 4), ("", 0)])
def test_an_unknown_version_is_not_found_with_the_known_names(
    serve: Serve, name: str, version: int
) -> None:
    with pytest.raises(ModelNotFound) as refused:
        described(serve(), name, version)
    assert refused.value.metadata["models"] == "a, b"


def test_a_negative_version_is_an_invalid_request(serve: Serve) -> None:
    with pytest.raises(InvalidRequest, match=r"model\.version"):
        described(serve(), "a", -1)


@pytest.mark.parametrize("folder", ["20260101120000", "99999999999999999999999"])
def test_a_timestamp_as_version_is_refused_without_breaking_the_list(
    serve: Serve, root: Path, folder: str
) -> None:
    """The version is a number that exceeds the contract's int32."""
    (root / "a" / folder).mkdir()
    ready = [
        (model.name, model.version)
        for model in listing(serve()).models
        if model.state == pb.Model.STATE_READY
    ]
    assert ready == [("a", 2), ("a", 1), ("b", 1)]


def reload(service: ModelService, request: pb.ReloadModelsRequest) -> pb.ReloadModelsResponse:
    """Call a method that completes later, on a separate thread."""
    replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
    service.reload_models(request.SerializeToString(), None, replies.put)
    return pb.ReloadModelsResponse.FromString(replies.get(timeout=TIMEOUT_S).build())


def test_reloads_run_in_order_and_cancelled_ones_are_skipped(root: Path) -> None:
    begun, release = queue.SimpleQueue[frozenset[str]](), threading.Semaphore(0)

    def held(names: Collection[str]) -> list[Outcome]:
        begun.put(frozenset(names))
        assert release.acquire(timeout=TIMEOUT_S)
        return []

    repository = Repository(
        root,
        Loader(
            lambda manifest: OnnxEngine(manifest, CPU, threads=1),
            limits=lambda name: Limits(max_batch_rows=8, queue_rows=64),
        ),
        max_versions=10,
    )
    service = ModelService(repository, max_request_rows=20, max_stream_rows=20, reload=held)
    replies: queue.SimpleQueue[str] = queue.SimpleQueue()
    calls = {
        name: service.reload_models(
            pb.ReloadModelsRequest(names=[name]).SerializeToString(),
            None,
            lambda reply, name=name: replies.put(name),
        )
        for name in ("first", "left waiting", "left running", "last")
    }
    assert begun.get(timeout=TIMEOUT_S) == {"first"}
    calls["left waiting"].cancel()
    release.release()
    assert replies.get(timeout=TIMEOUT_S) == "first"
    assert begun.get(timeout=TIMEOUT_S) == {"left running"}
    calls["left running"].cancel()
    release.release(2)
    assert replies.get(timeout=TIMEOUT_S) == "last"
    assert begun.get(timeout=TIMEOUT_S) == {"last"}
    assert replies.empty()


def test_a_reload_reports_the_outcome_of_every_version(serve: Serve, root: Path) -> None:
    service = serve()
    tiny_models.write_model(root, "b", version=2)
    (root / "c" / "1").mkdir(parents=True)
    shutil.rmtree(root / "a" / "1")
    reply = reload(service, pb.ReloadModelsRequest())
    action = pb.ReloadOutcome.Action.Name
    found = [(o.name, o.version, action(o.action), bool(o.reason)) for o in reply.outcomes]
    assert found == [
        ("a", 1, "ACTION_REMOVED", False),
        ("a", 2, "ACTION_UNCHANGED", False),
        ("a", 3, "ACTION_REFUSED", True),
        ("b", 1, "ACTION_UNCHANGED", False),
        ("b", 2, "ACTION_LOADED", False),
        ("c", 1, "ACTION_REFUSED", True),
    ]


def test_a_reload_of_one_model_does_not_change_others(serve: Serve, root: Path) -> None:
    service = serve()
    tiny_models.write_model(root, "b", version=2)
    shutil.rmtree(root / "a" / "1")
    request = pb.ReloadModelsRequest(names=["b"])
    reply = reload(service, request)
    assert [(outcome.name, outcome.version) for outcome in reply.outcomes] == [("b", 1), ("b", 2)]


def test_a_reload_of_an_unknown_model_lists_the_known_ones(serve: Serve) -> None:
    with pytest.raises(ModelNotFound, match=r"no model 'z'\. Models: a, b"):
        reload(serve(), pb.ReloadModelsRequest(names=["z"]))


@pytest.mark.parametrize("method", ["ListModels", "GetModel", "ReloadModels"])
def test_malformed_bytes_are_an_invalid_request(serve: Serve, method: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"not a latentserve\.v1\.{method}Request"):
        serve(load=False).unary_methods()[method](b"\xff" * 3, None, lambda reply: None)


def test_the_methods_are_those_of_the_contract(serve: Serve) -> None:
    contract = pb.DESCRIPTOR.services_by_name["ModelService"].methods
    assert set(serve(load=False).unary_methods()) == {method.name for method in contract}
