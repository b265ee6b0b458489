"""Client for asyncio, with the methods of `Client` as coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from numpy.typing import ArrayLike

from latentserve_client._base import (
    DEFAULT_MAX_MESSAGE_BYTES,
    DEFAULT_TIMEOUT_S,
    Call,
    ClientBase,
    Metadata,
    OutputFormat,
    R,
    Stubs,
)
from latentserve_client._channel import open_async_channel
from latentserve_client._errors import DeadlineExceeded, error_from_rpc
from latentserve_client._images import Images
from latentserve_client._models import Model, ModelList, ReloadOutcome
from latentserve_client._results import (
    DecodeResult,
    DenoiseResult,
    EncodeResult,
    ReconstructResult,
    SampleChunk,
    SampleResult,
)


class AsyncClient(ClientBase):
    """Client of a latentserve server for asyncio.

    Arguments, results and errors are those of `Client`. Create it inside the event loop that uses
    it, because gRPC binds the channel to that loop. Image files given by path are read in the loop.
    """

    def __init__(
        self,
        server: str = "127.0.0.1:50051",
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        model: str | None = None,
        wait_for_ready: bool = False,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
        allow_plaintext_token: bool = False,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        super().__init__(
            server,
            timeout_s=timeout_s,
            model=model,
            wait_for_ready=wait_for_ready,
            max_message_bytes=max_message_bytes,
            metadata=metadata,
            may_be_read=not (credentials or channel or allow_plaintext_token),
        )
        self._owned = (
            open_async_channel(server, max_message_bytes, credentials) if not channel else None
        )
        self._stubs = Stubs(channel or self._owned)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection and cancel calls in flight."""
        if self._owned is not None:
            await self._owned.close()

    async def models(self, *, timeout_s: float | None = None) -> ModelList:
        """As `Client.models`."""
        return await self._unary(self._models_call(timeout_s))

    async def model(
        self, name: str | None = None, version: int = 0, *, timeout_s: float | None = None
    ) -> Model:
        """As `Client.model`."""
        return await self._unary(self._model_call(name, version, timeout_s))

    async def encode(
        self,
        images: Images,
        *,
        model: str | None = None,
        seed: int | None = None,
        timeout_s: float | None = None,
    ) -> EncodeResult:
        """As `Client.encode`."""
        return await self._unary(self._encode_call(images, model, seed, timeout_s))

    async def decode(
        self,
        latents: ArrayLike,
        *,
        model: str | None = None,
        output_format: OutputFormat = "float32",
        timeout_s: float | None = None,
    ) -> DecodeResult:
        """As `Client.decode`."""
        return await self._unary(self._decode_call(latents, model, output_format, timeout_s))

    async def reconstruct(
        self,
        images: Images,
        *,
        model: str | None = None,
        output_format: OutputFormat = "float32",
        timeout_s: float | None = None,
    ) -> ReconstructResult:
        """As `Client.reconstruct`."""
        return await self._unary(self._reconstruct_call(images, model, output_format, timeout_s))

    async def denoise(
        self,
        images: Images,
        *,
        model: str | None = None,
        output_format: OutputFormat = "float32",
        timeout_s: float | None = None,
    ) -> DenoiseResult:
        """As `Client.denoise`."""
        return await self._unary(self._denoise_call(images, model, output_format, timeout_s))

    async def sample(
        self,
        count: int = 1,
        *,
        model: str | None = None,
        seed: int | None = None,
        offset: int = 0,
        temperature: float | None = None,
        output_format: OutputFormat = "float32",
        include_latents: bool = False,
        timeout_s: float | None = None,
    ) -> SampleResult:
        """As `Client.sample`."""
        return await self._unary(
            self._sample_call(
                count, model, seed, offset, temperature, output_format, include_latents, timeout_s
            )
        )

    def sample_stream(
        self,
        count: int,
        *,
        model: str | None = None,
        seed: int | None = None,
        offset: int = 0,
        temperature: float | None = None,
        output_format: OutputFormat = "float32",
        include_latents: bool = False,
        chunk_rows: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncIterator[SampleChunk]:
        """As `Client.sample_stream`, for `async for`."""
        return self._stream(
            self._sample_stream_call(
                count,
                model,
                seed,
                offset,
                temperature,
                output_format,
                include_latents,
                chunk_rows,
                timeout_s,
            )
        )

    async def reload_models(
        self, names: Iterable[str] = (), *, timeout_s: float | None = None
    ) -> tuple[ReloadOutcome, ...]:
        """As `Client.reload_models`."""
        return await self._unary(self._reload_call(names, timeout_s))

    async def health(self, service: str = "", *, timeout_s: float | None = None) -> str:
        """As `Client.health`."""
        return await self._unary(self._health_call(service, timeout_s))

    def watch_health(
        self, service: str = "", *, timeout_s: float | None = None
    ) -> AsyncIterator[str]:
        """As `Client.watch_health`, for `async for`."""
        statuses = self._stream(self._watch_call(service, timeout_s))
        return statuses if timeout_s is None else _until_deadline(statuses)

    async def _unary(self, call: Call[R]) -> R:
        try:
            reply = await call.method(self._stubs)(call.request, **self._options(call))
        except grpc.RpcError as error:
            raise error_from_rpc(error, call.default_message) from error
        return call.parse(reply)

    async def _stream(self, call: Call[R]) -> AsyncIterator[R]:
        replies = call.method(self._stubs)(call.request, **self._options(call))
        try:
            async for reply in replies:
                yield call.parse(reply)
        except grpc.RpcError as error:
            raise error_from_rpc(error, call.default_message) from error
        finally:
            replies.cancel()

    def _options(self, call: Call[Any]) -> dict[str, Any]:
        return {
            "timeout": call.timeout_s,
            "metadata": self._metadata,
            "wait_for_ready": self._wait_for_ready or None,
        }


async def _until_deadline(statuses: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        async for status in statuses:
            yield status
    except DeadlineExceeded:
        return
