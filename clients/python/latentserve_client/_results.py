"""Results of the calls.

Arrays are read-only views of the received bytes, which avoids a second copy. Use `.copy()` to get a
writable array.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from latentserve_client._images import encode_png


@dataclass(frozen=True, slots=True)
class ServedBy:
    """Model version and execution provider that served a call."""

    name: str
    version: int
    digest: str  # SHA-256 of the manifest, which identifies the weights
    provider: str  # ONNX Runtime execution provider, for example "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Timings:
    """Time of one call on the server."""

    queue_ns: int  # nanoseconds until the first batch with rows of this call started
    compute_ns: int  # nanoseconds in ONNX Runtime
    batch_rows: int  # rows of its largest batch, including rows of other calls


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagesResult:
    """Images of a reply, as an array, PNG files or PIL images, for any output format."""

    received: NDArray[Any] | tuple[bytes, ...] = field(repr=False)  # an array, or PNG files
    served_by: ServedBy
    timings: Timings

    @cached_property
    def images(self) -> NDArray[Any]:
        """Images [n, channels, height, width].

        float32 or float16 in [0, 1], or uint8 for output_format "uint8" and "png".
        """
        if isinstance(self.received, np.ndarray):
            return self.received
        return np.stack([read_pixels(png) for png in self.received])

    @cached_property
    def files(self) -> tuple[bytes, ...]:
        """One PNG file per image: as received, or encoded from the array."""
        if not isinstance(self.received, np.ndarray):
            return self.received
        return tuple(encode_png(image) for image in self.pil())

    def pil(self) -> list[PIL.Image.Image]:
        """Return one new PIL image of mode "L" or "RGB" per image."""
        return [to_pil(image) for image in self.images]


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodeResult:
    """Latents, in the order of the images."""

    latents: NDArray[np.float32]  # [n, dim]: the mean of q(z|x), or a sample if a seed was given
    log_variance: NDArray[np.float32] | None  # [n, dim]: ln of the variance, if the model has it
    seed: int | None  # of the sample
    served_by: ServedBy
    timings: Timings


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodeResult(ImagesResult):
    """Decoded images, in the order of the latents."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReconstructResult(ImagesResult):
    """Reconstructions, in the order of the images."""

    squared_error: NDArray[np.float32]  # [n]: sum over channels and pixels of [0, 1] images

    @property
    def mse(self) -> NDArray[np.float32]:
        """Mean squared error per image, [n]."""
        return self.squared_error / np.float32(self.images[0].size)


@dataclass(frozen=True, kw_only=True, eq=False)
class DenoiseResult(ImagesResult):
    """Denoised images, in the order of the noisy ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleResult(ImagesResult):
    """Images sampled from the model."""

    seed: int  # of the request, or chosen by the server; the same seed gives the same images
    latents: NDArray[np.float32] | None  # [n, dim], if include_latents was set


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleChunk(SampleResult):
    """Consecutive images of a stream."""

    offset: int  # row of the first image in the stream of the seed

    @property
    def next_offset(self) -> int:
        """Offset that resumes the stream after this chunk, passed as `offset` with its seed."""
        return self.offset + len(self.received)


def to_uint8(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Return images as uint8, clamped and rounded half to even, as the server does."""
    if images.dtype == np.uint8:
        return images
    return np.rint(np.clip(images.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def to_pil(image: NDArray[Any]) -> PIL.Image.Image:
    """Return one image [channels, height, width] as a PIL image of mode "L" or "RGB"."""
    pixels = to_uint8(image)
    if len(pixels) == 1:
        return PIL.Image.fromarray(pixels[0])
    return PIL.Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def read_pixels(png: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a PNG file as [channels, height, width]."""
    with PIL.Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
