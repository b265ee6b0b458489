"""Input images and latents of a command."""

from __future__ import annotations

import argparse
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from latentserve_client import digits
from latentserve_client._command_line import CommandError, UsageError
from latentserve_client._images import read_image


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images of the source that the options name."""

    to_send: NDArray[np.uint8] | list[Path] | list[PIL.Image.Image]  # digits, or files
    names: tuple[str, ...]  # one per image, for the output
    labels: NDArray[np.uint8] | None  # [n], if the digits are known

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, channels: int) -> NDArray[np.float32]:
        """Return the images as float32 [n, channels, height, width] in [0, 1].

        Files are converted to grey or RGB as on the server. Raises CommandError for files of
        different sizes.
        """
        if isinstance(self.to_send, np.ndarray):
            return self.to_send.astype(np.float32)[:, np.newaxis] / np.float32(255)
        images = [_pixels(file, channels) for file in self.to_send]
        if len({image.shape for image in images}) > 1:
            raise CommandError("the image files have different sizes; use --resize")
        return np.stack(images)

    def resized(self, height: int, width: int) -> Inputs:
        """Return the images resized to this height and width; digits are unchanged."""
        if isinstance(self.to_send, np.ndarray):
            return self
        size = (width, height)
        images = [_read(file).resize(size, PIL.Image.Resampling.LANCZOS) for file in self.to_send]
        return Inputs(images, self.names, self.labels)


def read_inputs(args: argparse.Namespace) -> Inputs:
    """Return the images that the options name.

    Raises UsageError unless the options name exactly one source, OSError for an unreadable file and
    CommandError for a damaged one.
    """
    sources = [bool(args.files), args.digits is not None, args.mnist is not None]
    if sum(sources) != 1:
        raise UsageError("give exactly one of: image files, --digits N, --mnist DIR")
    if args.files:
        for path in args.files:
            if path.is_dir():
                raise CommandError(f"{path}: is a folder; give image files")
        return Inputs(list(args.files), tuple(str(path) for path in args.files), None)
    if args.digits is not None:
        try:
            return _of_digits(digits.choose(digits.bundled(), args.digits))
        except ValueError as error:
            raise UsageError(f"--digits: {error}") from None
    try:
        every = digits.read_mnist(args.mnist)
    except (ValueError, FileNotFoundError) as error:
        raise CommandError(str(error)) from None
    chosen = every[args.start : args.start + args.count]
    if len(chosen) < args.count:
        raise CommandError(
            f"{args.mnist}: has {len(every)} digits, too few for "
            f"--start {args.start} --count {args.count}"
        )
    return _of_digits(chosen)


def read_latents(path: Path) -> NDArray[Any]:
    """Return the latents of an .npz file: its array `latents`, or its only array.

    Raises OSError for an unreadable file and CommandError for a file without latents.
    """
    try:
        with path.open("rb") as file:
            arrays = np.load(file)
            if isinstance(arrays, np.ndarray):
                return arrays
            keys = list(arrays)
            if "latents" not in keys and len(keys) != 1:
                raise CommandError(f"{path}: no array 'latents'; it has {', '.join(keys)}")
            return np.asarray(arrays["latents" if "latents" in keys else keys[0]])
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise CommandError(f"{path}: not a .npz file of plain arrays") from None


def _of_digits(chosen: digits.Digits) -> Inputs:
    names = tuple(f"digit {label}" for label in chosen.labels)
    return Inputs(chosen.images, names, chosen.labels)


def _pixels(file: Path | PIL.Image.Image, channels: int) -> NDArray[np.float32]:
    """Return one image as [channels, height, width]."""
    image = _read(file).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(image, np.float32) / np.float32(255)
    return pixels[np.newaxis] if channels == 1 else pixels.transpose(2, 0, 1)


def _read(file: Path | PIL.Image.Image) -> PIL.Image.Image:
    if isinstance(file, PIL.Image.Image):
        return file
    image = read_image(file.read_bytes(), str(file))
    # Palette and 1-bit images cannot be resized smoothly; alpha is dropped, as on the server.
    return image if image.mode == "L" else image.convert("RGB")
