"""Blocking wrapper of the asyncio client, so that both clients run the same cases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any

from latentserve_client import AsyncClient


class BlockingAsyncClient:
    """Wrapper that makes the methods of an AsyncClient blocking.

    Args:
        runner: runs the event loop in which the client was created.
        client: the client.
    """

    def __init__(self, runner: asyncio.Runner, client: AsyncClient) -> None:
        self._runner = runner
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            if isinstance(result, AsyncGenerator):
                return self._iterate(result)
            return self._runner.run(result)

        return call

    def _iterate(self, stream: AsyncGenerator[Any, None]) -> Iterator[Any]:
        """Yield the items of a stream; leaving the loop closes it."""
        try:
            while True:
                try:
                    item = self._runner.run(_next(stream))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._runner.run(_close(stream))


def open_client(runner: asyncio.Runner, make: Callable[[], AsyncClient]) -> BlockingAsyncClient:
    """Create an asyncio client inside the loop of a runner, as gRPC requires."""

    async def made() -> AsyncClient:
        return make()

    return BlockingAsyncClient(runner, runner.run(made()))


def _next(stream: AsyncGenerator[Any, None]) -> Coroutine[Any, Any, Any]:
    async def item() -> Any:
        return await anext(stream)

    return item()


def _close(stream: AsyncGenerator[Any, None]) -> Coroutine[Any, Any, None]:
    async def closed() -> None:
        await stream.aclose()

    return closed()
