"""Tests of the completion-queue transport: start-up check, fallback, rare states of calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from grpc._cython import cygrpc
from grpc_health.v1 import health_pb2

from batch_bench import Bench
from latentserve_server.batching.request import Rows
from latentserve_server.errors import ModelNotFound
from latentserve_server.observability.metrics import Metrics
from latentserve_server.services.call import Call, Done, Reply
from latentserve_server.services.health import HealthService
from latentserve_server.transport.aio.server import AioTransport
from latentserve_server.transport.base import LARGE_REQUEST_BYTES, Endpoint, Service
from latentserve_server.transport.completion_queue import operations
from latentserve_server.transport.completion_queue import server as cq_server
from latentserve_server.transport.completion_queue.acceptor import Acceptor
from latentserve_server.transport.completion_queue.server import (
    CompletionQueueServer,
    CompletionQueueTransport,
)
from latentserve_server.transport.factory import choose_transport
from latentserve_server.transport.flow_control.drain import DrainGate

TIMEOUT_S = 5.0


class Work:
    """A call in flight that records its cancellation."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class Chunks:
    """A stream of `count` chunks that counts the requested ones."""

    def __init__(self, chunk: bytes, count: int) -> None:
        self.chunk, self.count, self.asked = chunk, count, 0

    @property
    def exhausted(self) -> bool:
        return self.asked >= self.count

    def next_chunk(self, deadline: float | None, done: Done) -> Call:
        self.asked += 1
        done(Reply(lambda: self.chunk))
        return Work()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="codec") as pool:
        yield pool


@pytest.fixture
def gate() -> DrainGate:
    return DrainGate()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: ())


@pytest.fixture
def serve(
    executor: ThreadPoolExecutor, gate: DrainGate, metrics: Metrics
) -> Iterator[Callable[..., grpc.Channel]]:
    """Serve the methods of a service `t.T` and return a channel to it."""
    with contextlib.ExitStack() as stack:

        def start(*, streams: Any = None, drains: bool = True, **unary: Any) -> grpc.Channel:
            endpoint = Endpoint("127.0.0.1:0", options=[("grpc.so_reuseport", 0)])
            server = CompletionQueueServer(executor, endpoint, gate, metrics)
            server.add(Service("t.T", unary, streams or {}, drains=drains))
            port = server.start()
            stack.callback(lambda: server.stop(0.0).wait(TIMEOUT_S))
            options = [("grpc.use_local_subchannel_pool", 1)]
            return stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}", options=options))

        yield start


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + TIMEOUT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def echo(request: bytes, deadline: float | None, done: Done) -> Call:
    done(Reply(lambda: request))
    return Work()


# --- the start-up check and the fallback --------------------------------------------------------


def test_the_installed_grpcio_is_compatible() -> None:
    assert cq_server.find_incompatibility() is None


def test_a_missing_operation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cygrpc, "SendMessageOperation")
    assert "has no SendMessageOperation" in str(cq_server.find_incompatibility())


def test_a_changed_server_class_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "server", lambda *_, **__: object())
    assert "'_state'" in str(cq_server.find_incompatibility())


def test_a_dropped_call_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Acceptor, "accept", lambda self, event: self)
    reason = str(cq_server.find_incompatibility())
    assert "the test call failed: CANCELLED" in reason
    assert "\n" not in reason


def test_a_changed_reply_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    original = operations.message
    monkeypatch.setattr(operations, "message", lambda body: original(body[1:]))
    assert "differs from the request" in str(cq_server.find_incompatibility())


def test_the_transports_are_chosen_by_name(executor: ThreadPoolExecutor, metrics: Metrics) -> None:
    assert isinstance(choose_transport("aio", executor, metrics), AioTransport)
    assert isinstance(choose_transport("cq", executor, metrics), CompletionQueueTransport)


def test_the_fallback_logs_a_warning(
    executor: ThreadPoolExecutor,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delattr(cygrpc, "ReceiveMessageOperation")
    assert isinstance(choose_transport("cq", executor, metrics), AioTransport)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "falling back to grpc.aio" in record.message
    assert "ReceiveMessageOperation" in record.message


# --- one call -----------------------------------------------------------------------------------


def test_deadlines_are_monotonic(serve: Any) -> None:
    deadlines: list[float | None] = []

    def method(request: bytes, deadline: float | None, done: Done) -> Call:
        deadlines.append(deadline)
        return echo(request, deadline, done)

    call = serve(Echo=method).unary_unary("/t.T/Echo")
    assert call(b"a") == b"a"
    assert call(b"b", timeout=3.0) == b"b"
    without, with_one = deadlines
    assert without is None
    assert with_one is not None
    assert 2.0 < with_one - time.monotonic() < 3.1


def test_a_call_without_a_request_is_refused(serve: Any) -> None:
    call = serve(Echo=echo).stream_unary("/t.T/Echo")
    with pytest.raises(grpc.RpcError) as caught:
        call(iter(()), timeout=TIMEOUT_S)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expects exactly one" in caught.value.details()


@pytest.mark.parametrize("where", ["begin", "build"])
def test_an_unexpected_error_is_internal_and_only_logged(
    serve: Any, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    def fail() -> bytes:
        raise ValueError("secret detail")

    def method(request: bytes, deadline: float | None, done: Done) -> Call:
        if where == "begin":
            fail()
        done(Reply(fail))
        return Work()

    with pytest.raises(grpc.RpcError) as caught:
        serve(Fail=method).unary_unary("/t.T/Fail")(b"", timeout=TIMEOUT_S)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    # Logged at the end of the call, after the client may have got its status.
    assert eventually(lambda: "secret detail" in caplog.text)
    assert caught.value.details().split()[-1] in caplog.text


def test_large_requests_and_slow_replies_leave_the_polling_thread(serve: Any) -> None:
    threads: list[str] = []

    def method(request: bytes, deadline: float | None, done: Done) -> Call:
        threads.append(threading.current_thread().name)

        def build() -> bytes:
            threads.append(threading.current_thread().name)
            return b"x" * 10

        done(Reply(build, slow=True))
        return Work()

    call = serve(Large=method).unary_unary("/t.T/Large")
    call(bytes(LARGE_REQUEST_BYTES + 1), timeout=TIMEOUT_S)
    assert [name.startswith("codec") for name in threads] == [True, True]
    threads.clear()
    call(b"small", timeout=TIMEOUT_S)
    assert [name.startswith("codec") for name in threads] == [False, True]


@pytest.mark.parametrize(("expected_s", "thread"), [(1e-6, "polling"), (10.0, "engine-fake")])
def test_only_short_batches_run_on_the_polling_thread(
    executor: ThreadPoolExecutor, metrics: Metrics, expected_s: float, thread: str
) -> None:
    transport = CompletionQueueTransport(executor, metrics)
    bench = Bench(inline_hook=transport.take)
    bench.batcher.learn("decode", 1, expected_s)
    threads: list[str] = []
    bench.engine.during_run = lambda: threads.append(threading.current_thread().name)

    def decode(request: bytes, deadline: float | None, done: Done) -> Call:
        rows = (Rows(np.zeros((1, 2), np.float32)),)
        return bench.batcher.submit("decode", rows, None, lambda _: done(Reply(lambda: request)))

    async def serve_one() -> bytes:
        endpoint = Endpoint("127.0.0.1:0", options=[("grpc.so_reuseport", 0)])
        port = await transport.start(endpoint, [Service("t.T", {"Decode": decode})])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            reply: bytes = await channel.unary_unary("/t.T/Decode")(b"x", timeout=TIMEOUT_S)
        await transport.stop(0.0)
        return reply

    bench.batcher.start()
    assert asyncio.run(serve_one()) == b"x"
    bench.batcher.close(timeout_s=TIMEOUT_S)
    assert threads == [thread]


@pytest.mark.parametrize("size", [1, LARGE_REQUEST_BYTES + 1])
def test_a_cancelled_call_cancels_its_queued_request(
    serve: Any, gate: DrainGate, size: int
) -> None:
    work, begun = Work(), threading.Event()

    def method(request: bytes, deadline: float | None, done: Done) -> Call:
        begun.set()
        return work

    call = serve(Wait=method).unary_unary("/t.T/Wait").future(bytes(size))
    assert begun.wait(TIMEOUT_S)
    assert gate.in_flight == 1
    call.cancel()
    assert work.cancelled.wait(TIMEOUT_S)
    assert eventually(lambda: gate.in_flight == 0)


def test_cancelling_while_the_request_is_parsed_cancels_the_work(
    serve: Any, gate: DrainGate
) -> None:
    work, begun, parsed = Work(), threading.Event(), threading.Event()

    def method(request: bytes, deadline: float | None, done: Done) -> Call:
        begun.set()
        parsed.wait(TIMEOUT_S)
        return work

    call = serve(Parse=method).unary_unary("/t.T/Parse").future(bytes(LARGE_REQUEST_BYTES + 1))
    assert begun.wait(TIMEOUT_S)
    call.cancel()
    assert eventually(lambda: gate.in_flight == 0)
    assert not work.cancelled.is_set()
    parsed.set()
    assert work.cancelled.wait(TIMEOUT_S)


def test_a_reply_after_the_cancellation_is_dropped(serve: Any, gate: DrainGate) -> None:
    replies: list[Done] = []

    def method(request: bytes, deadline: float | None, done: Done) -> Call:
        replies.append(done)
        return Work()

    channel = serve(Late=method, Echo=echo)
    call = channel.unary_unary("/t.T/Late").future(b"")
    assert eventually(lambda: bool(replies))
    call.cancel()
    assert eventually(lambda: gate.in_flight == 0)
    replies[0](Reply(lambda: b"late"))
    assert channel.unary_unary("/t.T/Echo")(b"next", timeout=TIMEOUT_S) == b"next"


# --- streams ------------------------------------------------------------------------------------


def test_a_slow_reader_limits_the_stream(serve: Any) -> None:
    chunks = Chunks(bytes(2**20), 128)
    channel = serve(streams={"Many": lambda request: chunks})
    stream = channel.unary_stream("/t.T/Many")(b"", timeout=30.0)
    next(stream)
    time.sleep(0.3)
    assert chunks.asked < 64  # chunks in the buffers of gRPC and of the kernel
    assert sum(1 for _ in stream) == 127
    assert chunks.asked == 128


def test_a_stream_can_fail_at_any_chunk(serve: Any) -> None:
    class Failing(Chunks):
        def next_chunk(self, deadline: float | None, done: Done) -> Call:
            if self.asked == 2:
                raise ModelNotFound("it was unloaded")
            return super().next_chunk(deadline, done)

    def refuse(request: bytes) -> Chunks:
        raise ModelNotFound("there is none")

    channel = serve(streams={"Late": lambda request: Failing(b"x", 5), "Early": refuse})
    for name, expected in (("Late", 2), ("Early", 0)):
        stream = channel.unary_stream(f"/t.T/{name}")(b"", timeout=TIMEOUT_S)
        assert [next(stream) for _ in range(expected)] == [b"x"] * expected
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


# --- draining -----------------------------------------------------------------------------------


def test_a_drain_refuses_new_calls_and_waits_for_calls_in_flight(
    serve: Any, gate: DrainGate
) -> None:
    replies: list[Done] = []
    idle = threading.Event()

    def method(request: bytes, deadline: float | None, done: Done) -> Call:
        replies.append(done)
        return Work()

    call = serve(Slow=method).unary_unary("/t.T/Slow")
    first = call.future(b"")
    assert eventually(lambda: bool(replies))
    gate.close(idle.set)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=TIMEOUT_S)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in caught.value.details()
    assert not idle.is_set()
    replies[0](Reply(lambda: b"done"))
    assert first.result(TIMEOUT_S) == b"done"
    assert idle.wait(TIMEOUT_S)


def test_services_that_do_not_drain_are_neither_counted_nor_refused(
    serve: Any, gate: DrainGate
) -> None:
    gate.close(lambda: None)
    call = serve(Echo=echo, drains=False).unary_unary("/t.T/Echo")
    assert call(b"still here", timeout=TIMEOUT_S) == b"still here"
    assert gate.in_flight == 0


# --- health -------------------------------------------------------------------------------------


def test_a_watch_gets_each_change_once_and_is_removed_when_cancelled(serve: Any) -> None:
    health = HealthService()
    asyncio.run(health.set("", health_pb2.HealthCheckResponse.NOT_SERVING))
    channel = serve(Check=health.check, streams={"Watch": health.watch}, drains=False)
    watch = channel.unary_stream(
        "/t.T/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
    )(b"", timeout=TIMEOUT_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert eventually(lambda: len(health._waiting) == 1)
    for status in ("NOT_SERVING", "SERVING"):
        asyncio.run(health.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(status)))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    assert eventually(lambda: len(health._waiting) == 1)
    watch.cancel()
    assert eventually(lambda: not health._waiting)


def test_health_stays_not_serving_after_the_shutdown() -> None:
    health = HealthService()

    async def change() -> None:
        await health.set("", health_pb2.HealthCheckResponse.SERVING)
        await health.enter_graceful_shutdown()
        await health.set("", health_pb2.HealthCheckResponse.SERVING)

    asyncio.run(change())
    replies: list[bytes] = []
    health.check(b"", None, lambda reply: replies.append(reply.build()))
    (reply,) = replies
    status = health_pb2.HealthCheckResponse.FromString(reply).status
    assert status == health_pb2.HealthCheckResponse.NOT_SERVING
