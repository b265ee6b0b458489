"""Parser of requests with a tensor, with a cache of parsed headers.

Clients send many requests that differ only in the tensor's data: same model, same shape. So the
bytes before and after the data are cached together with the parsed message. A request of the same
length with the same prefix and suffix has the same meaning, and is not parsed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from latentserve_server.codec.zero_copy import locate
from latentserve_server.errors import InvalidRequest

# Below this size, the generated classes are faster than a search for the field.
_SMALL_BYTES = 512
# Bounds of the cache: request lengths, entries of each length, and bytes of a prefix or suffix.
_MAX_LENGTHS = 256
_MAX_ENTRIES = 4
_MAX_EDGE_BYTES = 512

M = TypeVar("M", bound=Message)


def parse(message_type: type[M], request: bytes) -> M:
    """Return the request message. Raises InvalidRequest for bytes that are not such a message."""
    try:
        return message_type.FromString(request)
    except DecodeError as error:
        raise InvalidRequest(
            f"{len(request)} bytes were sent that are not a {message_type.DESCRIPTOR.full_name}"
        ) from error


class ParsedRequest:
    """A request without the data of its tensor.

    Attributes:
        message: the request; without the tensor's `data` unless `start` is negative.
        start: offset of the tensor's data in the request's bytes; -1: the data are in `message`.
        length: bytes of the data if they are not in `message`.
        head, tail: bytes of the request before and after the data.
        name, version, output_format: fields of the request; 0 if it has no such field.
        layout, layout_of: the checked layout of the tensor, and the model's shape that it was
            checked for.
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
    """Parses the requests of one method. Thread-safe.

    Args:
        message_type: the generated class.
        path: the field numbers from the request to the tensor's `data`.
    """

    def __init__(self, message_type: Callable[[], Message], path: tuple[int, ...]) -> None:
        self._type: Any = message_type
        self._path = path
        self._cache: dict[int, tuple[ParsedRequest, ...]] = {}

    def read(self, request: bytes) -> ParsedRequest:
        """Return the parsed request. Raises InvalidRequest for bytes that are not a message."""
        for parsed in self._cache.get(len(request), ()):
            if request.startswith(parsed.head) and request.endswith(parsed.tail):
                return parsed
        if len(request) < _SMALL_BYTES:
            return ParsedRequest(parse(self._type, request))
        found = locate(request, self._path)
        if found is None:
            return ParsedRequest(parse(self._type, request))
        start, stop, rest = found
        try:
            message = self._type.FromString(rest)
        except DecodeError:  # parse the whole request, for its error
            return ParsedRequest(parse(self._type, request))
        parsed = ParsedRequest(message, start, stop - start, request[:start], request[stop:])
        if max(len(parsed.head), len(parsed.tail)) <= _MAX_EDGE_BYTES:
            self._store(len(request), parsed)
        return parsed

    def _store(self, length: int, parsed: ParsedRequest) -> None:
        cache = self._cache
        if length not in cache and len(cache) >= _MAX_LENGTHS:
            cache.pop(next(iter(cache)), None)
        cache[length] = (parsed, *cache.get(length, ())[: _MAX_ENTRIES - 1])
