"""Finds the tensor's bytes in a serialised request, so that they are viewed and not copied.

The generated classes copy a `bytes` field when they parse and again when it is read. Here the
field is located by its tags and lengths, and the message is parsed without it: what is left is
a few dozen bytes, and every other field, unknown ones included, keeps the meaning that the
generated classes give it. What is not plain (a field given twice, an overlong tag, another
wire type) is left to them altogether.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import NamedTuple

_LENGTH_DELIMITED = 2
_MAX_LENGTH_VARINT_BYTES = 5


class TensorLocation(NamedTuple):
    """Where a field is, and the message without it: `rest` parses like the whole does."""

    start: int
    stop: int
    rest: bytes


def locate(message: bytes, path: tuple[int, ...]) -> TensorLocation | None:
    """Return where the bytes field at `path` is, None where it is not there exactly once.

    `path` has the field numbers from the outermost message inwards, each below 16.
    """
    # (outer start, outer stop, tag, start, stop): from the whole message to the field itself.
    found: list[tuple[int, int, int, int, int]] = []
    start, stop = 0, len(message)
    for number in path:
        field = _find(message, start, stop, number)
        if field is None:
            return None
        found.append((start, stop, *field))
        _, start, stop = field
    *outer, (low, high, tag, first, last) = found
    rest = message[low:tag] + message[last:high]
    for low, high, tag, _, last in reversed(outer):
        rest = b"".join((message[low : tag + 1], varint(len(rest)), rest, message[last:high]))
    return TensorLocation(first, stop, rest)


def varint(number: int) -> bytes:
    """Return a number from 0 on as a varint."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _find(message: bytes, start: int, stop: int, number: int) -> tuple[int, int, int] | None:
    """Return (tag, start, stop) of a length-delimited field that is there exactly once."""
    found = None
    wanted = number << 3 | _LENGTH_DELIMITED
    position = start
    while position < stop:
        tag_at = position
        tag, position = _read_varint(message, position, stop)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length_at = position
            length, position = _read_varint(message, position, stop)
            end = position + length
            if end > stop:
                return None
            if tag >> 3 == number:
                overlong = position - length_at > _MAX_LENGTH_VARINT_BYTES
                if found is not None or message[tag_at] != wanted or overlong:
                    return None
                found = (tag_at, position, end)
            position = end
        elif tag >> 3 == number:
            return None
        elif kind == 0:
            _, position = _read_varint(message, position, stop)
        elif kind == 5:
            position += 4
        elif kind == 1:
            position += 8
        else:  # groups, and what is no wire type
            return None
    return found if position == stop else None


def _read_varint(message: bytes, position: int, stop: int) -> tuple[int, int]:
    """Return a varint and the position after it; a position beyond `stop` where it is cut off."""
    value = shift = 0
    while position < stop:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            break
    return 0, stop + 1
