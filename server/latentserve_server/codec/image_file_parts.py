"""Parser of PNG chunks and JPEG segments: the size, and the parts that hold the pixels.

Decoders spend most time and memory on parts that the pixels do not need: Pillow expands compressed
texts and profiles of a PNG, and joins the Exif segments of a JPEG in quadratic time. The functions
here cost a time linear in the file's bytes, so that a decoder gets only the parts that it needs.
"""

from __future__ import annotations

import re
import zlib

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks for the pixels of a PNG's first image; not those for texts, profiles and animation.
_PNG_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_CHUNK_OVERHEAD_BYTES = 12  # length, name and checksum of a chunk

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
# Start of frame of every process; C4, C8 and CC are other markers.
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SOS = 0xDA
_EOI = 0xD9
_DNL = 0xDC
_COM = 0xFE
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # DHT, DAC, DQT, DRI
_APP = frozenset(range(0xE0, 0xF0))
# APP0 and APP14 tell the decoder which colours the components are.
_COLOUR_SEGMENTS = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
# Any number of FF bytes may precede a marker. In coded pixels, FF is followed by 00 or a restart.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_MARKER_HERE = re.compile(rb"\xff+[^\x00\xff]")

MAX_HEADER_SEGMENTS = 1000
"""Segments before the size of a JPEG; the largest colour profile has 255."""

MAX_JPEG_SCANS = 100
"""A scan of a few bytes may cost as much as all pixels; encoders write 1 to 20."""


class NotAnImage(Exception):
    """The data are not a PNG or JPEG file that this module can parse."""


def image_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels from the header of a file. Raises NotAnImage."""
    if data.startswith(_PNG_SIGNATURE):
        if data[12:16] != b"IHDR" or len(data) < 24:
            raise NotAnImage("the first chunk is not a whole IHDR")
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    at = _jpeg_start(data)
    for _ in range(MAX_HEADER_SEGMENTS):
        marker, start, end = _jpeg_segment(data, at)
        if marker in _SOF:
            return int.from_bytes(data[start + 5 : start + 7]), int.from_bytes(
                data[start + 3 : start + 5]
            )
        if marker == _SOS:
            break
        at = end
    raise NotAnImage("the size is missing")


def pixel_parts(data: bytes) -> bytes:
    """Return a file with the parts for its pixels only. Raises NotAnImage.

    Metadata, later frames and bytes after the image are left out.
    """
    if data.startswith(_PNG_SIGNATURE):
        return _png_pixel_parts(data)
    return _jpeg_pixel_parts(data)


def _png_pixel_parts(data: bytes) -> bytes:
    """Keep the chunks of the pixels, and join adjacent IDAT chunks.

    Pillow spends microseconds on each chunk, and an IDAT chunk may be empty.
    """
    kept = [_PNG_SIGNATURE]
    pixels: list[bytes] = []
    start = len(_PNG_SIGNATURE)
    while start < len(data):
        end = start + int.from_bytes(data[start : start + 4]) + _PNG_CHUNK_OVERHEAD_BYTES
        name = data[start + 4 : start + 8]
        if name == b"IDAT":
            pixels.append(data[start + 8 : end - 4])
        elif name in _PNG_PIXEL_CHUNKS:
            kept += _png_pixels(pixels)
            pixels = []
            kept.append(data[start:end])
            if name == b"IEND":
                break
        start = end
    return b"".join([*kept, *_png_pixels(pixels)])


def _png_pixels(pixels: list[bytes]) -> list[bytes]:
    """Return one IDAT chunk with the joined data, nothing without data."""
    if not pixels:
        return []
    body = b"IDAT" + b"".join(pixels)
    return [(len(body) - 4).to_bytes(4), body, zlib.crc32(body).to_bytes(4)]


def _jpeg_pixel_parts(data: bytes) -> bytes:
    """Keep one frame header, the tables, the scans and the segments that name the colours."""
    kept = [_JPEG_START]
    at = _jpeg_start(data)
    frames = scans = 0
    while True:
        marker, start, end = _jpeg_segment(data, at, searching=bool(scans))
        if marker == _EOI:
            kept.append(_JPEG_END)
            break
        frames += marker in _SOF
        if frames > 1:
            raise NotAnImage("a second frame header would replace the size")
        if marker == _SOS:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                raise NotAnImage(f"there are more than {MAX_JPEG_SCANS} scans")
            following = _NEXT_MARKER.search(data, end)
            if following is None:  # cut off; the decoder says so, if pixels are missing
                kept += (b"\xff\xda", data[start:])
                break
            end = following.start()
        keeps = marker in _SOF or marker in _TABLES or marker == _SOS
        if keeps or data.startswith(_COLOUR_SEGMENTS.get(marker, b"\0\0"), start + 2):
            kept += (bytes((0xFF, marker)), data[start:end])
        elif marker not in _APP and marker not in (_COM, _DNL):
            raise NotAnImage(f"the marker {marker:02x} is unknown")
        at = end
    return b"".join(kept)


def _jpeg_start(data: bytes) -> int:
    if not data.startswith(_JPEG_START):
        raise NotAnImage("the signature is unknown")
    return len(_JPEG_START)


def _jpeg_segment(data: bytes, at: int, *, searching: bool = False) -> tuple[int, int, int]:
    """Return marker, start and end of a segment, from its length field to its last byte.

    `searching` skips other bytes before the marker, as decoders do after a scan.
    """
    found = _NEXT_MARKER.search(data, at) if searching else _MARKER_HERE.match(data, at)
    if found is None:
        raise NotAnImage("a marker is missing")
    start = found.end()
    marker = data[start - 1]
    if marker == _EOI:
        return marker, start, start
    length = int.from_bytes(data[start : start + 2])
    if length < 2 or start + length > len(data):
        raise NotAnImage("a segment is cut off")
    return marker, start, start + length
