"""Validated parameters of Sample and SampleStream, and the stream's chunks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve.v1 import generative_service_pb2 as pb
from latentserve_server.batching.batcher import Batcher
from latentserve_server.batching.request import Completion, Rows
from latentserve_server.codec import tensors
from latentserve_server.codec.reply_writer import Piece
from latentserve_server.errors import InvalidRequest, QueueFull
from latentserve_server.repository.model_version import LoadedModel
from latentserve_server.sampling import philox
from latentserve_server.sampling.prior import Prior
from latentserve_server.services.call import Call, Done, Reply
from latentserve_server.services.reply import ReplyBuilder, submit

MAX_TEMPERATURE = 10.0
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class SampleSpec:
    """Parameters of a sample from the prior: `count` rows from row `offset` of a seed."""

    seed: int
    offset: int
    count: int
    temperature: float

    @classmethod
    def of(cls, message: Any, *, max_count: int) -> SampleSpec:
        """Check the common fields of SampleRequest and SampleStreamRequest.

        Raises InvalidRequest.
        """
        if not 1 <= message.count <= max_count:
            raise InvalidRequest.field(
                "count", f"{message.count} was sent, expected 1 to {max_count}"
            )
        if not 0 <= message.offset <= philox.MAX_OFFSET:
            raise InvalidRequest.field(
                "offset", f"{message.offset} was sent, expected 0 to {philox.MAX_OFFSET}"
            )
        temperature = message.temperature if message.HasField("temperature") else 1.0
        if not 0.0 <= temperature <= MAX_TEMPERATURE:
            raise InvalidRequest.field(
                "temperature", f"{temperature} was sent, expected 0 to {MAX_TEMPERATURE:g}"
            )
        seed = message.seed if message.HasField("seed") else philox.fresh_seed()
        return cls(seed, message.offset, message.count, temperature)

    def latents(self, prior: Prior, first: int, rows: int) -> NDArray[np.float32]:
        """Return `rows` latents from row `first` of this sample, float32 [rows, dim]."""
        return prior.sample(
            self.seed, offset=self.offset + first, rows=rows, temperature=self.temperature
        )


class SampleStream:
    """The chunks of one SampleStream. One at a time, so a slow client costs one chunk of memory."""

    def __init__(
        self,
        model: LoadedModel,
        spec: SampleSpec,
        image_format: int,
        include_latents: bool,
        chunk_rows: int,
    ) -> None:
        self._model = model
        self._prior = prior_of(model)
        self._spec = spec
        self._image_format = image_format
        self._include_latents = include_latents
        self._chunk_rows = chunk_rows
        self._next_row = 0

    @property
    def exhausted(self) -> bool:
        """Whether every chunk was requested."""
        return self._next_row >= self._spec.count

    def next_chunk(self, deadline: float | None, done: Done) -> Call:
        """Submit the next chunk, and call `done` with its Reply.

        The first chunk is refused by a full queue, like any call; later ones wait for room.
        """
        first = self._next_row
        rows = min(self._chunk_rows, self._spec.count - first)
        self._next_row += rows
        batcher, running = self._model.batcher, first > 0
        if not (running and batcher.room.waiting):  # those that wait already are first
            try:
                return self._submit(first, rows, deadline, done, waited=running)
            except QueueFull as error:
                if not running or error.retry_after_s is None:
                    raise
        return _WaitingChunk(
            batcher,
            (rows, rows * self._model.manifest.latent_dim * _FLOAT_BYTES),
            lambda: self._submit(first, rows, deadline, done, waited=True),
            done,
        )

    def _submit(
        self, first: int, rows: int, deadline: float | None, done: Done, *, waited: bool = False
    ) -> Call:
        latents = self._spec.latents(self._prior, first, rows)

        def build(completion: Completion) -> Iterable[Piece]:
            yield from tensors.encode_images(1, completion.outputs[0], self._image_format)
            if self._include_latents:
                yield from tensors.encode_tensor(2, latents)
            rest = pb.SampleStreamResponse(seed=self._spec.seed, offset=self._spec.offset + first)
            yield rest.SerializeToString()

        builder = ReplyBuilder(build, served_by=5, image_format=self._image_format)
        rows_in = Rows(latents)
        return submit(self._model, "sample", rows_in, deadline, done, builder, waited=waited)


class _WaitingChunk:
    """A chunk that waits for room in the queue, and is then submitted.

    Args:
        batcher: the batcher of the model.
        size: rows and bytes of the chunk.
        send: submits the chunk.
        done: gets the error if it is refused for another reason than a full queue.
    """

    def __init__(
        self, batcher: Batcher, size: tuple[int, int], send: Callable[[], Call], done: Done
    ) -> None:
        self._batcher = batcher
        self._send = send
        self._done = done
        self._lock = threading.Lock()
        self._call: Call | None = None
        self._cancelled = False
        self._waiter = batcher.wait_for_room(*size, self._admit)

    def cancel(self) -> None:
        """Stop waiting, or cancel the submitted chunk."""
        with self._lock:
            self._cancelled, call = True, self._call
        if call is not None:
            call.cancel()
        else:
            self._batcher.room.forget(self._waiter)

    def _admit(self) -> bool:
        """Submit the chunk; return False if the queue is full again."""
        if self._cancelled:
            return True
        try:
            call = self._send()
        except QueueFull:
            return False
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            self._done(Reply(partial(_raise, error)))
            return True
        if self._keep(call):
            call.cancel()
        return True

    def _keep(self, call: Call) -> bool:
        """Store the submitted chunk; return whether it was cancelled meanwhile."""
        with self._lock:
            self._call = call
            return self._cancelled


def _raise(error: Exception) -> bytes:
    raise error


def prior_of(model: LoadedModel) -> Prior:
    """Return the prior of a model that can sample."""
    assert model.prior is not None  # noqa: S101 - every manifest with `sample` has a prior
    return model.prior
