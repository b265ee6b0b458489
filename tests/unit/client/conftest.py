"""Fixtures: a fake server, and a client that is sync and asyncio in turn."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from unit.client.fake_server import FakeServer

from latentserve_client import AsyncClient, Client


class Blocking:
    """An AsyncClient with blocking methods, so that one test covers both clients."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *args: Any, **options: Any) -> None:
        self._loop = loop

        async def create() -> AsyncClient:
            return AsyncClient(*args, **options)

        self._client = loop.run_until_complete(create())

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            if inspect.isasyncgen(result):
                return self._drain(result)
            return self._loop.run_until_complete(result)

        return call

    def _drain(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(anext(items))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(items.aclose())  # type: ignore[attr-defined]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    # One loop for all tests, because gRPC does not support several event loops per process well.
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Return a function that opens a sync or asyncio client, closed after the test."""
    clients: list[Any] = []

    def connect(*args: Any, **options: Any) -> Any:
        is_sync = request.param == "sync"
        clients.append(Client(*args, **options) if is_sync else Blocking(loop, *args, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Any, server: FakeServer) -> Any:
    return connect(server.address, timeout_s=5)


@pytest.fixture
def digits() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((3, 1, 28, 28), np.float32)
