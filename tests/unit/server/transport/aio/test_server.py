"""Tests of the grpc.aio transport that need controlled timing."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from grpc._cython import cygrpc

from latentserve_server.errors import Unavailable
from latentserve_server.observability.metrics import cancellation_code
from latentserve_server.services.call import Call, Done, Reply
from latentserve_server.transport.aio.drain import DrainGate
from latentserve_server.transport.aio.in_flight import CallsInFlight
from latentserve_server.transport.aio.log_filter import drop_cancellation
from latentserve_server.transport.aio.server import AioHandlers
from latentserve_server.transport.flow_control.codec_pool import CodecPool
from latentserve_server.transport.flow_control.reply_quota import ReplyQuota


def test_only_stack_traces_of_cancelled_calls_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("test.cancellation")
    logger.addFilter(drop_cancellation)
    write_to_nobody = cygrpc.ExecuteBatchError("Failed")
    for error in (asyncio.CancelledError(), write_to_nobody, ValueError("kept")):
        try:
            raise error
        except (asyncio.CancelledError, cygrpc.ExecuteBatchError, ValueError):
            logger.exception("in a call")
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


def test_the_gate_waits_for_calls_in_flight_and_refuses_new_ones() -> None:
    async def run() -> None:
        gate = DrainGate()
        with gate:
            assert gate.in_flight == 1
            assert not await gate.drain(timeout_s=0.01)
            with pytest.raises(Unavailable), gate:
                pass
        assert gate.in_flight == 0
        assert await gate.drain(timeout_s=0.01)

    asyncio.run(run())


class Recorder:
    """A call in flight that records its cancellation."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class Context:
    """Stand-in for grpc's context."""

    def time_remaining(self) -> None:
        return None


def handler(method: Any, executor: ThreadPoolExecutor) -> Any:
    codec, calls = CodecPool(executor), CallsInFlight(ReplyQuota(), 60.0)
    generic = AioHandlers(DrainGate(), codec, calls).generic_handler("s", {"M": method})

    class Details:
        method = "/s/M"
        invocation_metadata = ()

    return generic.service(Details()).unary_unary


def test_cancelling_during_decoding_of_a_large_request_cancels_the_call() -> None:
    call = Recorder()
    decoding = threading.Event()

    def slow(request: bytes, deadline: float | None, done: Done) -> Call:
        decoding.set()
        time.sleep(0.1)
        return call

    async def run(executor: ThreadPoolExecutor) -> None:
        task = asyncio.ensure_future(handler(slow, executor)(bytes(300_000), Context()))
        while not decoding.is_set():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not call.cancelled.is_set():
            await asyncio.sleep(0.005)

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(asyncio.wait_for(run(executor), 10))


def test_a_slow_reply_is_built_off_the_event_loop() -> None:
    threads = []

    def build() -> bytes:
        threads.append(threading.current_thread().name)
        return b"built"

    def method(request: bytes, deadline: float | None, done: Done) -> Call:
        done(Reply(build, slow=len(request) > 1))
        return Recorder()

    async def run(executor: ThreadPoolExecutor) -> None:
        behavior = handler(method, executor)
        assert await behavior(b"1", Context()) == b"built"
        assert await behavior(b"22", Context()) == b"built"

    with ThreadPoolExecutor(1, thread_name_prefix="codec") as executor:
        asyncio.run(run(executor))
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("codec")


@pytest.mark.parametrize(
    ("remaining_s", "code"),
    [
        (None, "CANCELLED"),
        (5.0, "CANCELLED"),
        (0.001, "DEADLINE_EXCEEDED"),
        (0.0, "DEADLINE_EXCEEDED"),
        (-1.0, "DEADLINE_EXCEEDED"),
    ],
)
def test_a_passed_deadline_is_distinguished_from_a_cancellation(
    remaining_s: float | None, code: str
) -> None:
    assert cancellation_code(remaining_s) == code
