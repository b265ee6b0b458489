"""Submission of rows to a batcher, and the reply built from their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from latentserve.v1 import tensor_pb2
from latentserve_server.batching.request import Completion, Rows
from latentserve_server.codec.reply_writer import Piece, message_field
from latentserve_server.errors import CallError, InvalidRequest, OutputNotFinite
from latentserve_server.repository.model_version import LoadedModel
from latentserve_server.services.call import Call, Done, Reply

# Above these sizes, a reply is not built on the transport's thread.
_MANY_FILES = 8  # PNG files
_LARGE_REPLY_BYTES = 2**20


class ReplyBuilder:
    """Builder of the reply of one call.

    Args:
        build: returns the pieces of the reply without `served_by` and `timings`.
        served_by: field number of `served_by`; `timings` has the next one.
        image_format: format of the images in the reply.
    """

    __slots__ = ("build", "image_format", "served_by")

    def __init__(
        self,
        build: Callable[[Completion], Iterable[Piece]],
        *,
        served_by: int,
        image_format: int = tensor_pb2.IMAGE_FORMAT_UNSPECIFIED,
    ) -> None:
        self.build = build
        self.served_by = served_by
        self.image_format = image_format


def submit(
    model: LoadedModel,
    operation: str,
    rows: Rows,
    deadline: float | None,
    done: Done,
    builder: ReplyBuilder,
    *,
    waited: bool = False,
) -> Call:
    """Queue rows; when they are complete, call `done` with a Reply.

    `waited` is for rows that waited for room (see `batching.room`).
    """
    count = len(rows.array)
    slow = (
        count > _MANY_FILES
        if builder.image_format == tensor_pb2.IMAGE_FORMAT_PNG
        else count * model.manifest.image.values * 4 > _LARGE_REPLY_BYTES
    )

    def completed(completion: Completion) -> None:
        def build() -> bytes:
            if completion.error is not None:
                raise _explain(completion.error, operation)
            number = builder.served_by
            pieces: list[Any] = [*builder.build(completion), _served_by(model, number)]
            pieces.append(_timings(completion, number + 1))
            completion.outputs = ()  # they may be kept until the reply is written, otherwise
            return b"".join(pieces)

        held_bytes = sum([output.nbytes for output in completion.outputs]) if slow else 0
        done(Reply(build, slow, (model, operation, count, completion), held_bytes))

    return model.batcher.submit(operation, (rows,), deadline, completed, waited=waited)


def _explain(error: CallError, operation: str) -> CallError:
    """Return the error for the client: latents, unlike images, may be too far from the prior."""
    if isinstance(error, OutputNotFinite) and operation == "decode":
        return InvalidRequest.field(
            "latents.data",
            f"row {error.row} gives an image with NaN or infinite values, expected latents in the "
            "range of the model's prior or of its encoder",
        )
    return error


def _served_by(model: LoadedModel, number: int) -> bytes:
    """Return the `served_by` field, which is cached, as all replies of a version share it."""
    cached = model.served_by.get(number)
    if cached is None:
        served_by = tensor_pb2.ServedBy(
            name=model.manifest.name,
            version=model.manifest.version,
            digest=model.manifest.digest,
            provider=model.provider,
        )
        cached = model.served_by[number] = message_field(number, served_by.SerializeToString())
    return cached


def _timings(completion: Completion, number: int) -> bytes:
    """Return the `timings` field: queue and compute time of a call."""
    timings = tensor_pb2.Timings(
        queue_ns=completion.queue_ns,
        compute_ns=completion.compute_ns,
        batch_rows=completion.batch_rows,
    )
    return message_field(number, timings.SerializeToString())
