"""Tests of decompression bombs and corrupted image files, and of the memory that they take."""

from __future__ import annotations

import functools
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentserve_server.codec.images import (
    MAX_FILE_BYTES,
    MAX_FILE_BYTES_PER_VALUE,
    UnreadableImage,
    read_image,
)
from latentserve_server.manifest.reader import ImageSpec

HEIGHT, WIDTH = 4, 6
GREY = ImageSpec(1, HEIGHT, WIDTH)
PIXELS = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
MEGABYTE = 1_000_000  # Pillow accepts 2^20 bytes of one text


def written(form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, format=form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def png(*chunks: bytes, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + header(width, height) + b"".join(chunks) + chunk(b"IEND", b"")


@functools.cache
def zeros(megabytes: int) -> bytes:
    """Return compressed data that expand to this number of megabytes."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MEGABYTE)) for _ in range(megabytes)) + packer.flush()


def tall_jpeg() -> bytes:
    data = bytearray(written("JPEG"))
    frame = data.index(b"\xff\xc0")  # start of frame: length, depth, then height and width
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


def animated(frames: int) -> bytes:
    """Return an animated PNG whose frames are all valid."""
    row = b"\0" + bytes(WIDTH)
    body = zlib.compress(row * HEIGHT)
    control = struct.pack(">IIIIHHBB", WIDTH, HEIGHT, 0, 0, 1, 1, 0, 0)
    chunks = [chunk(b"acTL", struct.pack(">II", frames, 0))]
    for frame in range(min(frames, 1000)):
        chunks.append(chunk(b"fcTL", struct.pack(">I", 2 * frame) + control))
        packed = body if frame else zlib.compress(pixel_rows())
        chunks.append(
            chunk(b"fdAT", struct.pack(">I", 2 * frame + 1) + packed)
            if frame
            else chunk(b"IDAT", packed)
        )
    return png(*chunks)


def pixel_rows() -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in PIXELS)


IDAT = chunk(b"IDAT", zlib.compress(pixel_rows()))

# name -> (the file, whether its pixels can be read)
BOMBS: dict[str, tuple[Callable[[], bytes], bool]] = {
    "PNG of 50,000 x 50,000": (
        lambda: png(chunk(b"IDAT", zeros(64)), width=50_000, height=50_000),
        False,
    ),
    "PNG of 2^31 x 2^31": (lambda: png(IDAT, width=2**31 - 1, height=2**31 - 1), False),
    "PNG whose pixels go on for 64 MB": (lambda: png(chunk(b"IDAT", zeros(64))), True),
    "PNG with 60 texts of a megabyte": (
        lambda: png(*[chunk(b"zTXt", b"%d\0\0" % n + zeros(1)) for n in range(60)], IDAT),
        True,
    ),
    "PNG with 60 texts behind the pixels": (
        lambda: png(IDAT, *[chunk(b"iTXt", b"c\0\1\0\0\0" + zeros(1))] * 60),
        True,
    ),
    "PNG with a text of 64 MB": (
        lambda: png(chunk(b"zTXt", b"Comment\0\0" + zeros(64)), IDAT),
        True,
    ),
    "PNG with a profile of 64 MB": (
        lambda: png(chunk(b"iCCP", b"icc\0\0" + zeros(64)), IDAT),
        True,
    ),
    "PNG with 60 profiles": (
        lambda: png(*[chunk(b"iCCP", b"icc\0\0" + zeros(1))] * 60, IDAT),
        True,
    ),
    # Pillow raises an IndexError, which must not become an internal error.
    "PNG with an empty profile behind its pixels": (lambda: png(IDAT, chunk(b"iCCP", b"")), True),
    "PNG of 500 frames": (lambda: animated(500), True),
    "PNG of 2^32 frames": (lambda: animated(2**32 - 1), True),
    "PNG with a chunk that says 2 GB": (
        lambda: png()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT",
        False,
    ),
    "PNG with a second header": (lambda: png(header(50_000, 50_000), IDAT), False),
    "JPEG of 65,000 x 65,000": (tall_jpeg, False),
    "JPEG cut off": (lambda: written("JPEG")[:-40], False),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_or_its_pixels_are_read(bomb: str) -> None:
    make, readable = BOMBS[bomb]
    if not readable:
        with pytest.raises(UnreadableImage):
            read_image(make(), GREY)
    elif "pixels go on" in bomb:
        assert not read_image(make(), GREY).any()
    else:
        np.testing.assert_array_equal(read_image(make(), GREY)[0], PIXELS)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_length_of_a_file_is_limited_by_its_pixels(form: str) -> None:
    plain = written(form)
    limit = MAX_FILE_BYTES + MAX_FILE_BYTES_PER_VALUE * HEIGHT * WIDTH
    longest = plain + bytes(limit - len(plain))
    np.testing.assert_array_equal(read_image(longest, GREY), read_image(plain, GREY))
    with pytest.raises(UnreadableImage, match=f"{limit + 1} bytes .* at most {limit}; save it"):
        read_image(longest + b"\0", GREY)
    # A large image is refused for its size, which the client can change.
    with pytest.raises(UnreadableImage, match="resize it first"):
        read_image(longest + b"\0", ImageSpec(1, 2, 2))


@pytest.mark.parametrize("length", range(0, 80, 3))
def test_a_truncated_file_is_refused_or_its_pixels_are_complete(length: int) -> None:
    """The pixels are complete if only bytes after them are missing."""
    plain = png(IDAT)
    try:
        np.testing.assert_array_equal(read_image(plain[:length], GREY)[0], PIXELS)
    except UnreadableImage as error:
        assert str(error).startswith(f"{length} bytes were sent")  # noqa: PT017 - an error is optional


MEASURE = """
import io, sys
from pathlib import Path
from PIL import Image
from test_images import BOMBS, GREY, UnreadableImage, read_image, written
read_image(written("PNG"), GREY), read_image(written("JPEG"), GREY)
files = [BOMBS[name][0]() for name in sys.argv[2:]]

def peak_kb():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

Path("/proc/self/clear_refs").write_text("5")  # resets the peak
before = peak_kb()
for file in files:
    try:
        if sys.argv[1] == "ours":
            read_image(file, GREY)
        else:
            Image.open(io.BytesIO(file)).load()
    except (UnreadableImage, ValueError):
        pass
print((peak_kb() - before) / 1024)
"""


def peak_growth_mb(reader: str, *names: str) -> float:
    """Return the growth of a process's peak memory while it reads some of the bombs, in MB."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, reader, *names],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return float(run.stdout)


def test_memory_stays_flat() -> None:
    assert peak_growth_mb("ours", *BOMBS) < 8
    # Pillow alone must exceed the limit, which proves that the measurement works.
    assert peak_growth_mb("Pillow", "PNG with 60 texts of a megabyte") > 40
