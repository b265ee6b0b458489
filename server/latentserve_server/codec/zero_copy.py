"""Locator of a tensor's bytes in a serialised request, for access without a copy.

The generated classes copy a `bytes` field when they parse it and again when it is read. Here the
field is located by its tags and lengths, and the generated classes parse the rest of the message,
a few dozen bytes, so all other fields, including unknown ones, keep their meaning. A message in
an unusual form (a repeated field, an overlong tag, another wire type) is parsed by the generated
classes as a whole.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import NamedTuple

_LENGTH_DELIMITED = 2
_MAX_LENGTH_VARINT_BYTES = 5


class TensorLocation(NamedTuple):
    """Offsets of a field, and `rest`, the valid serialised message without it."""

    start: int
    stop: int
    rest: bytes


def locate(message: bytes, path: tuple[int, ...]) -> TensorLocation | None:
    """Return the location of the bytes field at `path`; None unless it occurs exactly once.

    `path` has the field numbers from the outermost message inwards, each below 16.
    """
    # (outer start, outer stop, tag, start, stop), from the whole message to the field.
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
    """Return a non-negative number as a varint."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _find(message: bytes, start: int, stop: int, number: int) -> tuple[int, int, int] | None:
    """Return (tag, start, stop) of a length-delimited field that occurs exactly once."""
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
        else:  # groups and invalid wire types
            return None
    return found if position == stop else None


def _read_varint(message: bytes, position: int, stop: int) -> tuple[int, int]:
    """Return a varint and the position after it, which is beyond `stop` if it is truncated."""
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
