"""Coverage-guided fuzzer of requests: `python tests/fuzz/fuzz_requests.py [FLAGS]`.

It needs atheris (`pip install --group fuzz`), runs until it is stopped or finds a failure, and
writes the failing input to a file `crash-...`. The flags are those of libFuzzer: with
`-max_total_time=300` it ends after five minutes, with `FILE` it repeats one input. The seeds are
valid requests of every method, which are written at each start.

The first byte of an input selects a method and the meaning of the rest: the bytes of the request,
an image file in a request, or the chunks of a PNG, whose checksums are computed. Zero-copy parsing
must give the same result as the generated classes.
"""

from __future__ import annotations

import io
import logging
import struct
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["latentserve_server", "PIL"]):
    from PIL import JpegImagePlugin, MpoImagePlugin, PngImagePlugin  # noqa: F401

    import latentserve_server.codec.images
    import latentserve_server.codec.tensors
    import latentserve_server.services.generative  # noqa: F401
    import request_target
    from request_target import REQUESTS, ZERO_COPY_METHODS, Target, jpeg_file, png_file

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2

METHODS = sorted(REQUESTS)
AS_BYTES, AS_FILE, AS_CHUNKS = range(3)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def selector(method: str, meaning: int) -> bytes:
    """Return the first byte of an input."""
    return bytes([METHODS.index(method) + len(METHODS) * meaning])


def request_of(data: bytes) -> tuple[str, bytes]:
    """Return the method and the serialized request of an input."""
    meaning, index = divmod(data[0] % (3 * len(METHODS)), len(METHODS))
    rest = data[1:]
    if meaning == AS_BYTES:
        return METHODS[index], rest
    if meaning == AS_CHUNKS:
        rest = _png_of(rest)
    images = tensor_pb2.Images(encoded=tensor_pb2.EncodedImages(files=[rest]))
    return "Encode", pb.EncodeRequest(images=images).SerializeToString()


def seeds() -> list[bytes]:
    """Return the inputs of the initial corpus."""
    found = [
        selector(method, AS_BYTES) + message.SerializeToString()
        for method, messages in request_target.valid_requests().items()
        for message in messages
    ]
    files = [png_file(), png_file(bits=1), jpeg_file(), jpeg_file(progressive=True)]
    files.append(jpeg_file(dpi=(72, 72), comment=b"c", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0"))
    found += [selector("Encode", AS_FILE) + file for file in files]
    found += [selector("Encode", AS_CHUNKS) + _chunks_of(file) for file in files[:2]]
    return found


def _png_of(data: bytes) -> bytes:
    """Return a PNG from chunks with a name, a length of two bytes, and content."""
    source, out = io.BytesIO(data), [_SIGNATURE]
    while name := source.read(4):
        content = source.read(int.from_bytes(source.read(2)))
        out.append(struct.pack(">I", len(content)) + name + content)
        out.append(struct.pack(">I", zlib.crc32(name + content)))
    return b"".join(out)


def _chunks_of(png: bytes) -> bytes:
    """Return the chunks of a PNG; the inverse of `_png_of`."""
    out, start = [], len(_SIGNATURE)
    while start < len(png):
        size = int.from_bytes(png[start : start + 4])
        content = png[start + 8 : start + 8 + size]
        out.append(png[start + 4 : start + 8] + size.to_bytes(2) + content)
        start += size + 12
    return b"".join(out)


def main() -> None:
    """Fuzz until stopped."""
    # Warnings of Pillow about recoverable errors are not failures.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as temporary:
        target = Target(Path(temporary, "exports"))
        plain = Target(Path(temporary, "the-same"), reference=True)
        corpus = Path(temporary, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            assert isinstance(target.call(*request_of(seed)), list), seed
            (corpus / f"seed-{number}").write_bytes(seed)

        def one_input(data: bytes) -> None:
            if not data:
                return
            method, request = request_of(data)
            found = target.call(method, request)
            if method in ZERO_COPY_METHODS:
                expected = request_target.outcome(plain.call(method, request))
                assert request_target.outcome(found) == expected, method

        # Flags of the command line come last, so that they override the defaults.
        defaults = ["-max_len=4096", "-rss_limit_mb=1024", "-timeout=10"]
        flags = [sys.argv[0], *defaults, *sys.argv[1:]]
        repeats = any(Path(argument).is_file() for argument in sys.argv[1:])
        atheris.Setup(flags if repeats else [*flags, str(corpus)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
