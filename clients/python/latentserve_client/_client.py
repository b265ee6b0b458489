"""The client for ordinary, blocking code."""

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
    """Calls a latentserve server; thread-safe, and meant to be kept for many calls.

    Args:
        server: "HOST:PORT", or "dns:///NAME:PORT" to spread the calls over all its addresses.
        timeout_s: Seconds that a call may take, attempts and waiting included.
        model: The model for calls that name none: "NAME", or "NAME:VERSION". None: the server's
            default model.
        wait_for_ready: Whether a call waits, within its timeout, for a server that cannot be
            reached yet, instead of failing at once.
        max_message_bytes: The largest request and reply.
        credentials: For TLS, for example `grpc.ssl_channel_credentials()`. None: plain text.
        metadata: Sent with each call, for example `[("authorization", "Bearer ...")]`.
        channel: A channel to use instead of opening one, with interceptors or for a test. It
            stays open when the client is closed.

    Calls that fail with UNAVAILABLE, or with a full queue, are tried again up to three times
    within their timeout, as gRPC's retry policy and the server's advice say. Every method raises
    a `LatentserveError`; see the tree in that module's documentation.
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
        channel: grpc.Channel | None = None,
    ) -> None:
        super().__init__(
            server,
            timeout_s=timeout_s,
            model=model,
            wait_for_ready=wait_for_ready,
            max_message_bytes=max_message_bytes,
            metadata=metadata,
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
        """Close the connection; calls in flight are cancelled."""
        if self._owned is not None:
            self._owned.close()

    def models(self, *, timeout_s: float | None = None) -> ModelList:
        """List every version of every model, the refused ones too."""
        return self._unary(self._models_call(timeout_s))

    def model(
        self, name: str | None = None, version: int = 0, *, timeout_s: float | None = None
    ) -> Model:
        """Describe one model: "NAME" or "NAME:VERSION"; version 0 is the highest that is ready.

        Raises NotFound for a model or version that there is not.
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
        """Map images to latents, float32 [n, dim]: the mean, or with a seed a draw from q(z|x).

        `Images` tells what can be sent. Raises InvalidArgument for images that the model cannot
        take, and FailedPrecondition for a seed where the model has no log-variance.
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
        """Map latents, float [n, dim] or one row [dim], to images [n, channels, height, width].

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
        """Encode and decode images; the result also has the squared error of each."""
        return self._unary(self._reconstruct_call(images, model, output_format, timeout_s))

    def denoise(
        self,
        images: Images,
        *,
        model: str | None = None,
        output_format: OutputFormat = "float32",
        timeout_s: float | None = None,
    ) -> DenoiseResult:
        """Remove the noise from images; floats may be from -10 to 10 here."""
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
        """Draw `count` images from the model.

        The latent of image k depends on the seed, `offset + k` and the temperature alone. Without
        a seed the server draws one and returns it. A temperature below 1 draws nearer the mode, or
        nearer the mean of the row's component where the prior is a mixture.
        Raises InvalidArgument for more than the model's max_request_rows; see `sample_stream`.
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
        """Draw many images and yield them in chunks, the same images that `sample` gives.

        The timeout is for the whole stream. After a break, go on with the seed and `next_offset`
        of the last chunk. Leaving the loop early cancels the rest. `chunk_rows` 0 leaves the size
        of the chunks to the server.
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
        """Have the server look at its model folder again, for these names or for all.

        Takes up to 120 s unless told otherwise. Raises Unimplemented where the server has
        reloading switched off.
        """
        return self._unary(self._reload_call(names, timeout_s))

    def health(self, service: str = "", *, timeout_s: float | None = None) -> str:
        """Return "SERVING", "NOT_SERVING" or "UNKNOWN" for the server, or for a model by its name.

        Raises NotFound for a service that the server does not know.
        """
        return self._unary(self._health_call(service, timeout_s))

    def watch_health(self, service: str = "", *, timeout_s: float | None = None) -> Iterator[str]:
        """Yield the health now and after every change, "SERVICE_UNKNOWN" where there is none.

        Ends when `timeout_s` has passed; without one, it goes on until the loop is left.
        """
        statuses = self._stream(self._watch_call(service, timeout_s))
        return statuses if timeout_s is None else _until_deadline(statuses)

    def _unary(self, call: Call[R]) -> R:
        try:
            reply = call.method(self._stubs)(call.request, **self._options(call))
        except grpc.RpcError as error:
            raise error_from_rpc(error, call.unsaid) from error
        return call.parse(reply)

    def _stream(self, call: Call[R]) -> Iterator[R]:
        # Arguments were checked by the caller of this generator, before the first `next`.
        replies = call.method(self._stubs)(call.request, **self._options(call))
        try:
            for reply in replies:
                yield call.parse(reply)
        except grpc.RpcError as error:
            raise error_from_rpc(error, call.unsaid) from error
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
