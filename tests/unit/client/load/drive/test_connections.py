"""Both kinds of connection against a real server on a real socket."""

import contextlib
import logging
import sys
import threading
from concurrent import futures

import grpc
import pytest
import trustme
from unit.client.fake_server import Failure

from latentserve.v1 import generative_service_pb2 as pb
from latentserve_client.load.drive import completion_queue_connection, connection_factory
from latentserve_client.load.drive.aio_connection import AioConnections
from latentserve_client.load.drive.completion_queue_connection import CompletionQueueConnection
from latentserve_client.load.drive.connection_factory import open_connections
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import CallKind, Request

SAMPLE = CallKind("sample", "/latentserve.v1.GenerativeService/Sample")
STREAM = CallKind("stream", "/latentserve.v1.GenerativeService/SampleStream", streaming=True)
ONE = pb.SampleRequest(count=1, seed=3).SerializeToString()
LIMIT_S = 20.0


@pytest.fixture(params=["cq", "aio"])
def opened(request):
    """Return a function that opens one connection, closed after the test."""
    with contextlib.ExitStack() as stack:

        def opened(server, **options):
            target = Target(server, 2**20, **options)
            if request.param == "cq":
                made = CompletionQueueConnection(target)
            else:
                (made,) = AioConnections.open(target, 1)
            stack.callback(made.close)
            return made

        yield opened


def make(connected, kind, payload, timeout_s=10.0):
    """Make a call; return its result and the messages of a stream."""
    ended, messages, happened = [], [], threading.Event()

    def done(result):
        ended.append(result)
        happened.set()

    connected.start(kind, payload, timeout_s, done, messages.append)
    assert happened.wait(LIMIT_S)
    assert len(ended) == 1
    return ended[0], messages


def test_a_unary_call(opened, server):
    ended, messages = make(opened(server.address), SAMPLE, ONE)
    assert (ended.code, messages) == (0, [])
    assert pb.SampleResponse.FromString(ended.message).seed == 3
    assert 0 < server.seen[0].time_remaining_s < 11


def test_a_stream_gives_every_message_before_its_end(opened, server):
    payload = pb.SampleStreamRequest(count=11, chunk_rows=2).SerializeToString()
    ended, messages = make(opened(server.address), STREAM, payload)
    assert (ended.code, ended.message) == (0, None)
    offsets = [pb.SampleStreamResponse.FromString(message).offset for message in messages]
    assert offsets == [0, 2, 4, 6, 8, 10]


def test_many_calls_at_once_and_from_other_threads(opened, server):
    connected = opened(server.address)
    codes, happened = [], threading.Event()

    def done(ended):
        codes.append(ended.code)
        if len(codes) == 200:
            happened.set()

    def start():
        for _ in range(50):
            connected.start(SAMPLE, ONE, 10.0, done, None)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert happened.wait(LIMIT_S)
    assert set(codes) == {0}
    assert connected.in_flight == 0


@pytest.mark.parametrize("kind", [SAMPLE, STREAM])
def test_a_failure_has_its_code_message_and_pushback(opened, server, kind):
    server.failures.append(Failure("RESOURCE_EXHAUSTED", "queue is full", pushback_ms=250))
    ended, messages = make(opened(server.address), kind, ONE)
    assert (ended.code, ended.details, ended.pushback_s) == (8, "queue is full", 0.25)
    assert messages == []
    assert len(server.seen) == 1  # no automatic retry


def test_metadata_is_sent(opened, server):
    make(opened(server.address, metadata=(("authorization", "Bearer x"),)), SAMPLE, ONE)
    assert server.seen[0].metadata["authorization"] == "Bearer x"


def test_an_unreachable_server_is_unavailable(opened):
    ended, _ = make(opened("127.0.0.1:1"), SAMPLE, ONE)
    assert ended.code == 14
    assert "refused" in ended.details


@pytest.fixture
def silent():
    """A server that sends no reply until the end of the test."""
    release = threading.Event()

    class Silent(grpc.GenericRpcHandler):
        def service(self, details):
            def wait(request, context):
                release.wait(LIMIT_S)
                return b""

            return grpc.unary_unary_rpc_method_handler(wait)

    running = grpc.server(futures.ThreadPoolExecutor(4))
    running.add_generic_rpc_handlers((Silent(),))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield f"127.0.0.1:{port}"
    release.set()
    running.stop(0).wait()


def test_a_deadline_ends_a_call(opened, silent):
    ended, _ = make(opened(silent), SAMPLE, ONE, timeout_s=0.05)
    assert ended.code == 4


def test_closing_cancels_calls_in_flight(opened, silent):
    connected = opened(silent)
    codes, happened = [], threading.Event()
    connected.start(
        SAMPLE, ONE, 60.0, lambda ended: (codes.append(ended.code), happened.set()), None
    )
    assert connected.in_flight == 1
    connected.close()
    assert happened.wait(LIMIT_S)
    assert codes == [1]
    connected.close()  # a second close has no effect


def test_tls(opened):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    running = grpc.server(futures.ThreadPoolExecutor(1))

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

    running.add_generic_rpc_handlers((Echo(),))
    pair = (
        certificate.private_key_pem.bytes(),
        b"".join(blob.bytes() for blob in certificate.cert_chain_pems),
    )
    port = running.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    running.start()
    trusted = authority.cert_pem.bytes()
    ended, _ = make(opened(f"127.0.0.1:{port}", tls=True, tls_ca=trusted), SAMPLE, ONE)
    assert ended.message == ONE
    running.stop(0).wait()


TRIAL = (SAMPLE, Request(0, 0, ONE))


def close(connections):
    for connected in connections:
        connected.close()


def test_the_completion_queue_is_chosen_after_a_trial_call(server, caplog):
    connections, name = open_connections(Target(server.address, 2**20), 2, "cq", TRIAL, 10)
    close(connections)
    assert (len(connections), name, caplog.text) == (2, "cq", "")
    assert len(server.seen) == 1


def test_an_error_status_passes_the_trial(server):
    server.failures.append(Failure("INTERNAL"))
    connections, name = open_connections(Target(server.address, 2**20), 1, "cq", TRIAL, 10)
    close(connections)
    assert name == "cq"


def test_falls_back_with_a_warning_if_private_calls_of_grpcio_fail(server, caplog, monkeypatch):
    def gone(*_):
        raise AttributeError("integrated_call")

    monkeypatch.setattr(CompletionQueueConnection, "_integrated", gone)
    monkeypatch.setattr(completion_queue_connection, "_CLOSE_LIMIT_S", 0.1)
    with caplog.at_level(logging.WARNING):
        connections, name = open_connections(Target(server.address, 2**20), 2, "cq", TRIAL, 10)
    assert name == "aio"
    assert "falling back to grpc.aio" in caplog.text
    assert make(connections[1], SAMPLE, ONE)[0].code == 0
    close(connections)


def test_falls_back_if_the_trial_call_does_not_end(server, caplog, monkeypatch):
    monkeypatch.setattr(CompletionQueueConnection, "start", lambda *_: None)
    monkeypatch.setattr(connection_factory, "_TRIAL_EXTRA_S", 0.05)
    connections, name = open_connections(Target(server.address, 2**20), 1, "cq", TRIAL, 0.05)
    close(connections)
    assert name == "aio"
    assert "did not end" in caplog.text


def test_falls_back_if_the_import_fails(server, caplog, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "latentserve_client.load.drive.completion_queue_connection", None
    )
    connections, name = open_connections(Target(server.address, 2**20), 1, "cq", TRIAL, 10)
    assert name == "aio"
    assert "falling back" in caplog.text
    assert make(connections[0], SAMPLE, ONE)[0].code == 0
    close(connections)
