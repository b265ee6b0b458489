import pickle

import numpy as np
import pytest
from unit.client.fake_server import Failure

import latentserve_client
from latentserve_client import (
    BadReply,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    LatentserveError,
    MessageTooLarge,
    NotFound,
    OperationNotSupported,
    QueueFull,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
    _errors,
)


@pytest.mark.parametrize("detailed", [True, False])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", InvalidArgument),
        ("NOT_FOUND", NotFound),
        ("FAILED_PRECONDITION", FailedPrecondition),
        ("RESOURCE_EXHAUSTED", ResourceExhausted),
        ("DEADLINE_EXCEEDED", DeadlineExceeded),
        ("UNAVAILABLE", Unavailable),
        ("CANCELLED", Cancelled),
        ("UNIMPLEMENTED", Unimplemented),
        ("UNAUTHENTICATED", Unauthenticated),
        ("PERMISSION_DENIED", Unauthenticated),
        ("INTERNAL", InternalError),
        ("UNKNOWN", InternalError),
        ("ALREADY_EXISTS", LatentserveError),
    ],
)
def test_every_code_has_its_error(client, server, code, kind, detailed):
    # A negative pushback forbids retries.
    server.failures.append(Failure(code, "because", detailed=detailed, pushback_ms=-1))
    with pytest.raises(LatentserveError) as caught:
        client.sample()
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.message, error.reason, error.violations) == (code, "because", "", ())
    assert str(error).startswith(f"{code}: because")
    assert len(server.seen) == 1


def test_violations(client, server):
    server.failures.append(
        Failure(
            "INVALID_ARGUMENT",
            "images.tensor.shape: got [1, 3], expected [n, 1, 28, 28]",
            reason="INVALID_REQUEST",
            violations={
                "images.tensor.shape": "got [1, 3], expected [n, 1, 28, 28]",
                "seed": "not allowed",
            },
        )
    )
    with pytest.raises(InvalidArgument) as caught:
        client.sample()
    assert caught.value.violations == (
        Violation("images.tensor.shape", "got [1, 3], expected [n, 1, 28, 28]"),
        Violation("seed", "not allowed"),
    )
    # The text does not repeat the message.
    assert str(caught.value) == (
        "INVALID_ARGUMENT: images.tensor.shape: got [1, 3], expected [n, 1, 28, 28]\n"
        "  seed: not allowed"
    )


def test_operation_not_supported_lists_the_operations(client, server):
    server.failures.append(
        Failure(
            "FAILED_PRECONDITION",
            "gan cannot encode",
            reason="OPERATION_NOT_SUPPORTED",
            metadata={"operations": "decode, sample"},
        )
    )
    with pytest.raises(OperationNotSupported) as caught:
        client.sample()
    assert caught.value.reason == "OPERATION_NOT_SUPPORTED"
    assert str(caught.value).endswith("\n  Supported operations: decode, sample.")


def test_queue_full_has_the_retry_delay(client, server):
    server.failures += [
        Failure("RESOURCE_EXHAUSTED", reason="QUEUE_FULL", retry_after_s=0.25, pushback_ms=-1)
    ]
    with pytest.raises(QueueFull) as caught:
        client.sample()
    assert caught.value.retry_after_s == 0.25
    assert "Try again in 0.25 s." in str(caught.value)


def test_internal_error_names_the_request(client, server):
    server.failures.append(Failure("INTERNAL", "internal error", metadata={"request_id": "r-17"}))
    with pytest.raises(InternalError) as caught:
        client.sample()
    assert caught.value.metadata["request_id"] == "r-17"
    assert "request id r-17" in str(caught.value)


def test_message_too_large_for_the_server(client, server):
    with pytest.raises(MessageTooLarge, match="larger than max"):
        client.encode(np.zeros((400, 1, 28, 28), np.float32))
    assert not server.seen


def test_message_too_large_for_the_client(connect, server):
    with pytest.raises(MessageTooLarge, match="larger than max"):
        connect(server.address, max_message_bytes=1000).encode(np.zeros((1, 28, 28)))
    with pytest.raises(MessageTooLarge, match="max_message_bytes"):
        connect(server.address, max_message_bytes=1000).sample(1)


def test_deadline(client, server):
    with pytest.raises(DeadlineExceeded, match="timeout_s"):
        list(client.sample_stream(10**12, chunk_rows=1, timeout_s=0.3))


def test_unreachable_server(connect, server):
    server.stop()
    with pytest.raises(Unavailable, match="Check that the server runs"):
        connect(server.address).sample()


def test_status_that_does_not_belong_to_its_details():
    class Rewritten:
        """A call whose status a proxy replaced without its details."""

        def code(self):
            import grpc

            return grpc.StatusCode.UNAVAILABLE

        def details(self):
            return None

        def trailing_metadata(self):
            return (("grpc-status-details-bin", b"\x08\x03\x12\x01x"),)

    error = _errors.error_from_rpc(Rewritten())
    assert type(error) is Unavailable
    assert error.message == "the server gave no reason"


def test_errors_survive_pickling():
    error = QueueFull("full", "", "QUEUE_FULL", "", (Violation("a", "b"),), 0.5, {"x": "y"})
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.retry_after_s, copy.metadata) == (str(error), 0.5, {"x": "y"})
    assert copy.violations == error.violations


def test_the_documented_tree_matches_the_classes():
    kinds = [
        kind
        for kind in vars(_errors).values()
        if isinstance(kind, type) and issubclass(kind, LatentserveError)
    ]
    assert BadReply in kinds
    for kind in kinds:
        assert kind.__name__ in (_errors.__doc__ or "")
        assert getattr(latentserve_client, kind.__name__) is kind


def test_advice_does_not_repeat_the_message(client, server):
    server.failures += [
        Failure("NOT_FOUND", "no model x. Models: a, b", metadata={"models": "a, b"}),
        Failure("UNIMPLEMENTED", "this server does not reload", reason="NOT_IMPLEMENTED"),
    ]
    with pytest.raises(NotFound) as not_found:
        client.sample()
    assert str(not_found.value) == "NOT_FOUND: no model x. Models: a, b"
    with pytest.raises(Unimplemented) as unimplemented:
        client.reload_models()
    assert str(unimplemented.value) == "UNIMPLEMENTED: this server does not reload"


def test_health_names_an_unknown_service(client):
    with pytest.raises(NotFound, match="no service or model 'nope'"):
        client.health("nope")
