"""Tests of the parts of image files that are left out, and of the pixels that must not change."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentserve_server.codec.image_file_parts import (
    MAX_HEADER_SEGMENTS,
    MAX_JPEG_SCANS,
    NotAnImage,
    image_size,
    pixel_parts,
)

WIDTH, HEIGHT = 19, 13
SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF = b"Exif\0\0" + Image.Exif().tobytes()


def picture(mode: str) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    return Image.fromarray(noise[..., :3]).convert(mode)


def written(form: str, mode: str = "L", **options: Any) -> bytes:
    out = io.BytesIO()
    picture(mode).save(out, form, **options)
    return out.getvalue()


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def last_scan(data: bytes) -> bytes:
    return data[data.rindex(b"\xff\xda") : -2]


FILES = {
    "grey PNG": written("PNG"),
    "PNG with a palette": written("PNG", "P", transparency=3),
    "JPEG": written("JPEG"),
    "colour JPEG": written("JPEG", "RGB", quality=95, subsampling=2),
    "JPEG of RGB components": written("JPEG", "RGB", keep_rgb=True),
    "CMYK JPEG": written("JPEG", "CMYK"),
    "progressive JPEG": written("JPEG", "RGB", progressive=True, optimize=True),
    "JPEG with restarts": written("JPEG", "RGB", restart_marker_blocks=1),
    "JPEG with metadata": written("JPEG", exif=EXIF, icc_profile=bytes(100_000), comment="text"),
}


@pytest.mark.parametrize("name", FILES)
def test_size_and_pixels_of_every_form_are_kept(name: str) -> None:
    data = FILES[name]
    assert image_size(data) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(pixels(pixel_parts(data)), pixels(data))


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE1, b"Exif\0\0ab"),
        segment(0xE2, b"ICC_PROFILE\0\1\1xx"),
        segment(0xE2, b"MPF\0"),
        segment(0xED, b"Photoshop 3.0\0"),
        segment(0xE0, b"JFXX\0"),
        segment(0xE0, b""),
        segment(0xFE, b"text"),
    ],
)
def test_metadata_of_a_jpeg_is_left_out_before_and_between_the_scans(extra: bytes) -> None:
    plain = written("JPEG", progressive=True)
    scan = plain.index(last_scan(plain))
    full = plain[:2] + extra * 500 + plain[2:scan] + extra * 500 + plain[scan:] + extra
    assert image_size(full) == (WIDTH, HEIGHT)
    assert pixel_parts(full) == pixel_parts(plain) == plain


def test_fill_bytes_may_precede_a_marker() -> None:
    plain = written("JPEG")
    frame = plain.index(b"\xff\xc0")
    assert pixel_parts(plain[:frame] + b"\xff" * 5000 + plain[frame:]) == plain


def test_scans_and_header_segments_of_a_jpeg_are_limited() -> None:
    plain = written("JPEG", progressive=True)
    scan, scans = last_scan(plain), plain.count(b"\xff\xda")
    most = plain[:-2] + scan * (MAX_JPEG_SCANS - scans) + plain[-2:]
    assert pixel_parts(most) == most
    with pytest.raises(NotAnImage, match="scans"):
        pixel_parts(most[:-2] + scan + most[-2:])
    with pytest.raises(NotAnImage, match="size"):
        image_size(plain[:2] + segment(0xFE, b"") * MAX_HEADER_SEGMENTS + plain[2:])


def test_a_jpeg_has_one_frame_header() -> None:
    plain = written("JPEG")
    start = plain.index(b"\xff\xc0")
    end = start + 2 + int.from_bytes(plain[start + 2 : start + 4])
    with pytest.raises(NotAnImage, match="second frame header"):
        pixel_parts(plain[:end] + plain[start:end] + plain[end:])


def test_pieces_of_a_png_are_joined() -> None:
    plain = written("PNG")
    at = plain.index(b"IDAT")
    length = int.from_bytes(plain[at - 4 : at])
    data = plain[at + 4 : at + 4 + length]
    pieces = b"".join(chunk(b"IDAT", data[i : i + 1]) + chunk(b"IDAT", b"") for i in range(length))
    split = plain[: at - 4] + pieces + chunk(b"tEXt", b"a\0b") + plain[at + 8 + length :]
    assert pixel_parts(split) == pixel_parts(plain) == plain


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        SIGNATURE,
        SIGNATURE + chunk(b"IDAT", bytes(20)),
        b"\xff\xd8",
        b"\xff\xd8junk",
        b"\xff\xd8" + b"\xff" * 100,
        b"\xff\xd8\xff\xe0\0\1",
        b"\xff\xd8\xff\xe0\xff\xff",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8" + segment(0xDA, bytes(6)),
    ],
)
def test_data_without_a_size_is_not_an_image(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        image_size(data)


@pytest.mark.parametrize("length", range(0, len(written("JPEG", progressive=True)), 7))
def test_a_truncated_jpeg_is_refused(length: int) -> None:
    data = written("JPEG", progressive=True)[:length]
    with pytest.raises((NotAnImage, OSError)):
        pixels(pixel_parts(data))
