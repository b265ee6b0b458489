"""Requests that carry a tensor: parsed once for each form, and viewed in place after that.

Callers send the same form again and again: the same model, the same shape, other numbers.
So what precedes and what follows the numbers is remembered with what it meant, and a request
that begins and ends like one before, and is as long, means the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from latentserve_server.codec.zero_copy import locate
from latentserve_server.errors import InvalidRequest

# Below this, the generated classes are faster than a look for the field.
_SMALL_BYTES = 512
# What is remembered is bounded: so many lengths of requests, so many forms of each, so large.
_MAX_LENGTHS = 256
_MAX_FORMS = 4
_MAX_EDGE_BYTES = 512

M = TypeVar("M", bound=Message)


def parse(message_type: type[M], request: bytes) -> M:
    """Return the request message; raises InvalidRequest for bytes that are none."""
    try:
        return message_type.FromString(request)
    except DecodeError as error:
        raise InvalidRequest(
            f"{len(request)} bytes were sent that are not a {message_type.DESCRIPTOR.full_name}"
        ) from error


class ParsedRequest:
    """All of a request but the numbers of its tensor.

    Attributes:
        message: the request; without the tensor's `data` where `start` is not negative.
        start: where in the request's bytes the tensor's data begin; -1: they are in `message`.
        length: of the data in bytes, where they are not in `message`.
        name, version, output_format: what the request says; 0 where it has no such field.
        layout, layout_of: what a service found in order, and for which model's shape.
    """

    __slots__ = (
        *("head", "layout", "layout_of", "length", "message", "name"),
        *("output_format", "start", "tail", "version"),
    )

    def __init__(
        self, message: Any, start: int = -1, length: int = 0, head: bytes = b"", tail: bytes = b""
    ) -> None:
        self.message = message
        self.start = start
        self.length = length
        self.head = head
        self.tail = tail
        self.name: str = message.model.name
        self.version: int = message.model.version
        self.output_format: int = getattr(message, "output_format", 0)
        self.layout: Any = None
        self.layout_of: object = None


class RequestParser:
    """Reads the requests of one method. Safe from any thread.

    Args:
        message_type: the generated class.
        path: the field numbers that lead to the tensor's `data`.
    """

    def __init__(self, message_type: Callable[[], Message], path: tuple[int, ...]) -> None:
        self._type: Any = message_type
        self._path = path
        self._known: dict[int, tuple[ParsedRequest, ...]] = {}

    def read(self, request: bytes) -> ParsedRequest:
        """Return the form of a request; raises InvalidRequest for bytes that are none."""
        for form in self._known.get(len(request), ()):
            if request.startswith(form.head) and request.endswith(form.tail):
                return form
        if len(request) < _SMALL_BYTES:
            return ParsedRequest(parse(self._type, request))
        found = locate(request, self._path)
        if found is None:
            return ParsedRequest(parse(self._type, request))
        start, stop, rest = found
        try:
            message = self._type.FromString(rest)
        except DecodeError:  # the whole one gives the error
            return ParsedRequest(parse(self._type, request))
        form = ParsedRequest(message, start, stop - start, request[:start], request[stop:])
        if max(len(form.head), len(form.tail)) <= _MAX_EDGE_BYTES:
            self._remember(len(request), form)
        return form

    def _remember(self, length: int, form: ParsedRequest) -> None:
        known = self._known
        if length not in known and len(known) >= _MAX_LENGTHS:
            known.pop(next(iter(known)), None)
        known[length] = (form, *known.get(length, ())[: _MAX_FORMS - 1])
