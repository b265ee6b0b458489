"""Connection on the public grpc.aio API: slower than the completion queue, but stable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from latentserve_client.load.drive.connection import CallResult, OnDone, OnMessage, pushback_s
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import CallKind

_CLOSE_LIMIT_S = 10.0


class AioConnections:
    """Opens connections that share one event loop in a separate thread."""

    @staticmethod
    def open(target: Target, count: int) -> Sequence[AioConnection]:
        """Return `count` connections; closing the last one stops the loop."""
        loop = _Loop(count)
        return [AioConnection(loop, target) for _ in range(count)]


class _Loop:
    def __init__(self, users: int) -> None:
        self.loop = asyncio.new_event_loop()
        self._users = users
        self._thread = threading.Thread(target=self._run, name="load-aio", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine on the loop from another thread and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(_CLOSE_LIMIT_S)

    def release(self) -> None:
        """Release one use of the loop; the last release stops it."""
        self._users -= 1
        if not self._users:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(_CLOSE_LIMIT_S)
            self.loop.close()


class AioConnection:
    """One channel of grpc.aio."""

    def __init__(self, loop: _Loop, target: Target) -> None:
        self._loop = loop
        self._metadata = target.metadata or None
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = self._ended = 0
        self._closed = False
        self._lock = threading.Lock()
        self._channel = loop.run(self._open(target))

    @staticmethod
    async def _open(target: Target) -> grpc.aio.Channel:
        credentials, options = target.credentials(), target.options()
        if credentials is None:
            return grpc.aio.insecure_channel(target.server, options)
        return grpc.aio.secure_channel(target.server, credentials, options)

    @property
    def in_flight(self) -> int:
        """Number of calls that have not ended."""
        return self._started - self._ended

    def start(
        self,
        kind: CallKind,
        payload: bytes,
        timeout_s: float,
        done: OnDone,
        on_message: OnMessage | None,
    ) -> None:
        """Start a call."""
        with self._lock:
            self._started += 1
        self._loop.loop.call_soon_threadsafe(
            self._spawn, kind, payload, timeout_s, done, on_message
        )

    def _spawn(
        self, kind: CallKind, payload: bytes, timeout_s: float, done: OnDone, on_message: Any
    ) -> None:
        task = self._loop.loop.create_task(self._call(kind, payload, timeout_s, done, on_message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(
        self, kind: CallKind, payload: bytes, timeout_s: float, done: OnDone, on_message: Any
    ) -> None:
        message = None
        options: dict[str, Any] = {"timeout": timeout_s, "metadata": self._metadata}
        try:
            if kind.streaming and on_message is not None:
                async for message in self._channel.unary_stream(kind.method)(payload, **options):
                    on_message(message)
                ended = CallResult(0, None)
            else:
                message = await self._channel.unary_unary(kind.method)(payload, **options)
                ended = CallResult(0, message)
        except grpc.aio.AioRpcError as error:
            pushback = pushback_s(error.trailing_metadata())
            ended = CallResult(error.code().value[0], None, error.details() or "", pushback)
        except asyncio.CancelledError:
            ended = CallResult(grpc.StatusCode.CANCELLED.value[0], None, "the load has ended")
        with self._lock:
            self._ended += 1
        done(ended)

    def close(self) -> None:
        """Cancel the calls in flight and close the channel."""
        if self._closed:
            return
        self._closed = True
        self._loop.run(self._close())
        self._loop.release()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()
