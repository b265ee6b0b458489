"""Synchronous client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
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
from latentserve_client._channel import open_channel
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


class Client(ClientBase):
    """Client of a latentserve server; thread-safe, and intended for reuse over many calls.

    Args:
        server: "HOST:PORT", or "dns:///NAME:PORT" to distribute the calls over all its addresses.
        timeout_s: Timeout of a call in seconds, including retries and backoff.
        model: Model of calls without a `model` argument: "NAME" or "NAME:VERSION". None: the
            default model of the server.
        wait_for_ready: Whether a call waits, within its timeout, for a server that is not
            reachable yet, instead of failing immediately.
        max_message_bytes: Size limit of a request and of a reply.
        credentials: TLS credentials, for example `grpc.ssl_channel_credentials()`. None: no TLS.
        metadata: Metadata of each call, for example `[("authorization", "Bearer ...")]`.
        allow_plaintext_token: Whether `authorization` metadata may be sent without TLS, because
            something else protects the connection. Otherwise it is an InvalidArgument.
        channel: Existing channel, for example with interceptors. Closing the client does not
            close it.

    Calls that fail with UNAVAILABLE or because a queue is full are retried up to three times
    within their timeout, after the backoff of the gRPC retry policy or the delay that the server
    requests. Every method may raise a `LatentserveError`; `_errors` documents its subclasses.
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
        channel: grpc.Channel | None = None,
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
        self._owned = open_channel(server, max_message_bytes, credentials) if not channel else None
        self._stubs = Stubs(channel or self._owned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and cancel calls in flight."""
        if self._owned is not None:
            self._owned.close()

    def models(self, *, timeout_s: float | None = None) -> ModelList:
        """List all versions of all models, including refused ones."""
        return self._unary(self._models_call(timeout_s))

    def model(
        self, name: str | None = None, version: int = 0, *, timeout_s: float | None = None
    ) -> Model:
        """Describe one model: "NAME" or "NAME:VERSION"; version 0 is the highest ready version.

        Raises NotFound for an unknown model or version.
        """
        return self._unary(self._model_call(name, version, timeout_s))

    def encode(
        self,
        images: Images,
        *,
        model: str | None = None,
        seed: int | None = None,
        timeout_s: float | None = None,
    ) -> EncodeResult:
        """Encode images to latents, float32 [n, dim]: the mean, or with a seed a sample of q(z|x).

        `Images` documents the accepted images. Raises InvalidArgument for images that the model
        does not accept, and FailedPrecondition for a seed if the model has no log-variance.
        """
        return self._unary(self._encode_call(images, model, seed, timeout_s))

    def decode(
        self,
        latents: ArrayLike,
        *,
        model: str | None = None,
        output_format: OutputFormat = "float32",
        timeout_s: float | None = None,
    ) -> DecodeResult:
        """Decode latents, float [n, dim] or one row [dim], to images [n, channels, height, width].

        Raises InvalidArgument for latents of another dimension, and OperationNotSupported for a
        model without a decoder.
        """
        return self._unary(self._decode_call(latents, model, output_format, timeout_s))

    def reconstruct(
        self,
        images: Images,
        *,
        model: str | None = None,
        output_format: OutputFormat = "float32",
        timeout_s: float | None = None,
    ) -> ReconstructResult:
        """Encode and decode images; the result includes the squared error of each image."""
        return self._unary(self._reconstruct_call(images, model, output_format, timeout_s))

    def denoise(
        self,
        images: Images,
        *,
        model: str | None = None,
        output_format: OutputFormat = "float32",
        timeout_s: float | None = None,
    ) -> DenoiseResult:
        """Remove noise from images; float images may be in [-10, 10]."""
        return self._unary(self._denoise_call(images, model, output_format, timeout_s))

    def sample(
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
        """Sample `count` images from the model.

        The latent vector of image k depends only on the seed, `offset + k` and the temperature.
        Without a seed, the server chooses one and returns it. A temperature below 1 samples closer
        to the mode of the prior, or to the mean of the component of the row for a mixture prior.
        Raises InvalidArgument for more than max_request_rows of the model; see `sample_stream`.
        """
        return self._unary(
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
    ) -> Iterator[SampleChunk]:
        """Sample many images and yield them in chunks; the images equal those of `sample`.

        The timeout applies to the whole stream. To resume an interrupted stream, pass the seed and
        `next_offset` of the last chunk. Leaving the loop early cancels the call. With `chunk_rows`
        0, the server chooses the chunk size.
        """
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

    def reload_models(
        self, names: Iterable[str] = (), *, timeout_s: float | None = None
    ) -> tuple[ReloadOutcome, ...]:
        """Reload the model folder of the server, for these names or for all models.

        The timeout is 120 s by default, or that of the client if longer. Raises Unimplemented if
        reloading is disabled on the server.
        """
        return self._unary(self._reload_call(names, timeout_s))

    def health(self, service: str = "", *, timeout_s: float | None = None) -> str:
        """Return "SERVING", "NOT_SERVING" or "UNKNOWN" for the server, or for a model by its name.

        Raises NotFound for an unknown service.
        """
        return self._unary(self._health_call(service, timeout_s))

    def watch_health(self, service: str = "", *, timeout_s: float | None = None) -> Iterator[str]:
        """Yield the current health and every change; "SERVICE_UNKNOWN" for an unknown service.

        Ends after `timeout_s`; without a timeout, the stream is infinite.
        """
        statuses = self._stream(self._watch_call(service, timeout_s))
        return statuses if timeout_s is None else _until_deadline(statuses)

    def _unary(self, call: Call[R]) -> R:
        try:
            reply = call.method(self._stubs)(call.request, **self._options(call))
        except grpc.RpcError as error:
            raise error_from_rpc(error, call.default_message) from error
        return call.parse(reply)

    def _stream(self, call: Call[R]) -> Iterator[R]:
        # The caller has checked the arguments already, before the first `next` of this generator.
        replies = call.method(self._stubs)(call.request, **self._options(call))
        try:
            for reply in replies:
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


def _until_deadline(statuses: Iterator[str]) -> Iterator[str]:
    try:
        yield from statuses
    except DeadlineExceeded:
        return
