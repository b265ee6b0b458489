"""Tests of the handover of a shared port: no call is refused or crosses the GOAWAY."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import pytest

from latentserve_server.errors import InvalidRequest
from latentserve_server.observability.metrics import Metrics
from latentserve_server.services.call import Call, Done, Reply
from latentserve_server.transport.aio import server as aio_server
from latentserve_server.transport.base import Endpoint, Service, Transport
from latentserve_server.transport.completion_queue import server as cq_server
from latentserve_server.transport.factory import choose_transport

TIMEOUT_S = 20.0
HOLD_S = 1.0
T = TypeVar("T")


class Work:
    def cancel(self) -> None:
        pass


class Bench:
    """A transport on a separate event loop, with a method that succeeds and one that fails."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._executor = ThreadPoolExecutor(2)
        self.slow: list[Done] = []
        self.seen = threading.Semaphore(0)
        self.transport: Transport = self.run(self._make(name))

    async def _make(self, name: str) -> Transport:
        transport = choose_transport(name, self._executor, Metrics(lambda: ()))
        methods = {"Echo": self._echo, "Refuse": self._refuse, "Slow": self._begin}
        endpoint = Endpoint("127.0.0.1:0", options=[("grpc.so_reuseport", 1)])
        self.port = await transport.start(endpoint, [Service("t.T", methods)])
        return transport

    def _echo(self, request: bytes, deadline: float | None, done: Done) -> Call:
        self.seen.release()
        done(Reply(lambda: request))
        return Work()

    def _refuse(self, request: bytes, deadline: float | None, done: Done) -> Call:
        self.seen.release()
        raise InvalidRequest("no")

    def _begin(self, request: bytes, deadline: float | None, done: Done) -> Call:
        self.slow.append(done)
        self.seen.release()
        return Work()

    def submit(self, work: Awaitable[T]) -> Any:
        async def wait() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self.loop)

    def run(self, work: Awaitable[T]) -> T:
        result: T = self.submit(work).result(TIMEOUT_S)
        return result

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            yield channel

    def close(self) -> None:
        self.run(self.transport.stop(0.0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT_S)
        self.loop.close()
        self._executor.shutdown()


@pytest.fixture
def long_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (aio_server, cq_server):
        monkeypatch.setattr(module, "HOLD_BEFORE_S", HOLD_S)


@pytest.fixture(params=["aio", "cq"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.close()


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + TIMEOUT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.usefixtures("long_hold")
def test_replies_are_held_while_the_port_closes_and_no_call_is_refused(
    bench: Bench,
) -> None:
    with bench.channel() as channel:
        calls = {name: channel.unary_unary(f"/t.T/{name}") for name in ("Echo", "Refuse")}
        assert calls["Echo"](b"warm", timeout=TIMEOUT_S) == b"warm"
        handing_over = bench.submit(bench.transport.hand_over(timeout_s=TIMEOUT_S))
        bench.seen.acquire(timeout=TIMEOUT_S)
        time.sleep(0.1)  # now the replies are held
        began = time.monotonic()
        futures = {name: call.future(b"x", timeout=TIMEOUT_S) for name, call in calls.items()}
        for _ in futures:
            assert bench.seen.acquire(timeout=TIMEOUT_S)
        assert not any(future.done() for future in futures.values())
        assert futures["Echo"].result() == b"x"
        assert futures["Refuse"].exception().code() == grpc.StatusCode.INVALID_ARGUMENT
        assert time.monotonic() - began > HOLD_S / 2
        assert handing_over.result(TIMEOUT_S)
        with pytest.raises(grpc.RpcError) as caught:
            calls["Echo"](b"x", timeout=TIMEOUT_S)
        # The connection is closed, and no other process listens on the port in this test.
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "shutting down" not in caught.value.details()


def test_the_handover_waits_for_calls_in_flight(bench: Bench) -> None:
    with bench.channel() as channel:
        future = channel.unary_unary("/t.T/Slow").future(b"x", timeout=TIMEOUT_S)
        assert bench.seen.acquire(timeout=TIMEOUT_S)
        handing_over = bench.submit(bench.transport.hand_over(timeout_s=TIMEOUT_S))
        time.sleep(0.6)
        assert not handing_over.done()
        bench.slow[0](Reply(lambda: b"late"))
        assert handing_over.result(TIMEOUT_S)
        assert future.result() == b"late"


def test_the_handover_reports_calls_that_exceed_the_timeout(bench: Bench) -> None:
    with bench.channel() as channel:
        future = channel.unary_unary("/t.T/Slow").future(b"x", timeout=TIMEOUT_S)
        assert bench.seen.acquire(timeout=TIMEOUT_S)
        assert not bench.run(bench.transport.hand_over(timeout_s=0.1))
        bench.run(bench.transport.stop(0.0))
        assert future.exception().code() == grpc.StatusCode.UNAVAILABLE


def test_a_cancelled_handover_releases_the_replies(bench: Bench) -> None:
    """A second signal cancels the handover in the same way."""
    with bench.channel() as channel:
        echo = channel.unary_unary("/t.T/Echo")
        echo(b"warm", timeout=TIMEOUT_S)
        handing_over = bench.submit(bench.transport.hand_over(timeout_s=TIMEOUT_S))
        time.sleep(0.02)
        handing_over.cancel()
        assert eventually(handing_over.done)
        assert echo(b"x", timeout=TIMEOUT_S) == b"x"
