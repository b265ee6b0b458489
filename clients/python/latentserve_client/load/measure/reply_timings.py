"""Reader of the Timings in a serialized reply, without parsing its images.

Parsing a reply copies its images, which costs more than the rest of its processing. The protobuf
encoding gives number, wire type and length of each field, so that other fields can be skipped.
"""

from __future__ import annotations

NO_TIMINGS = (-1, -1, -1)


def read_timings(reply: bytes, field: int) -> tuple[int, int, int]:
    """Return (queue_ns, compute_ns, batch_rows) of the sub-message `field` of a reply.

    Returns (-1, -1, -1) if the field is missing or the reply is malformed.
    """
    try:
        found = _sub_message(reply, field)
        return NO_TIMINGS if found is None else _three_integers(reply, *found)
    except IndexError:
        return NO_TIMINGS


def _sub_message(data: bytes, wanted: int) -> tuple[int, int] | None:
    position, size = 0, len(data)
    while position < size:
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == 2:
            length, position = _varint(data, position)
            if tag >> 3 == wanted:
                return position, position + length
            position += length
        elif wire_type == 0:
            _, position = _varint(data, position)
        elif wire_type == 5:
            position += 4
        elif wire_type == 1:
            position += 8
        else:
            return None
    return None


def _three_integers(data: bytes, position: int, end: int) -> tuple[int, int, int]:
    values = [0, 0, 0, 0]
    while position < end:
        tag, position = _varint(data, position)
        if tag & 7:
            return NO_TIMINGS  # not a varint: another message
        value, position = _varint(data, position)
        if tag >> 3 <= 3:
            values[tag >> 3] = value
    return values[1], values[2], values[3]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = byte & 0x7F, 7
    while True:
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
