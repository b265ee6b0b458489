"""Grids of images with row labels and headings, drawn with Pillow.

section = Section("Denoise", "mnist-dae v1", (Row("noisy", noisy), Row("denoised", clean)))
draw([section]).save("denoised.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageColor, ImageDraw

from latentserve_client._results import to_pil
from latentserve_client.style import (
    HEADING_PX,
    INK,
    LABEL_ANCHOR,
    MUTED,
    NEGATIVE,
    PAPER,
    POSITIVE,
    RULE,
    TEXT_PX,
    TITLE_PX,
    ZERO,
    font,
)

_MARGIN_PX = 28
_GAP_PX = 6  # between tiles
_LABEL_GAP_PX = 14  # between a row label and its images
_TILE_PX = 84  # approximate size that small images are enlarged to
_CELLS_PER_LINE = 16  # of a latent strip
_STRIP_LINE_PX = 20

_SCALE = np.array([ImageColor.getrgb(each) for each in (NEGATIVE, ZERO, POSITIVE)], np.float32)


@dataclass(frozen=True, eq=False)
class Row:
    """Images side by side, with a label on their left."""

    caption: str
    images: NDArray[Any]  # [n, c, h, w] or grey [n, h, w]; uint8, or float in [0, 1] (clipped)
    upscale: bool = True  # False for latent strips, which have their final size


@dataclass(frozen=True, eq=False)
class Section:
    """Rows with common columns, under a heading."""

    heading: str
    note: str  # small, beside the heading
    rows: tuple[Row, ...]


def draw(
    sections: Sequence[Section], *, title: str = "", note: str = "", columns: int = 10
) -> PIL.Image.Image:
    """Return a picture of the sections, one below the other.

    Rows with more than `columns` images continue in a further block with all rows of the section.
    """
    blocks = [(section, _tiles(section, columns)) for section in sections]
    captions = [row.caption for section in sections for row in section.rows]
    indent = round(max((font(TEXT_PX).getlength(c) for c in captions), default=0))
    indent += _LABEL_GAP_PX if indent else 0
    right = max(
        [indent + _line_width(line) for _, lines in blocks for _, line in lines]
        + [_heading_width(section.heading, section.note) for section in sections]
        + [round(font(TITLE_PX).getlength(title)), round(font(TEXT_PX).getlength(note))]
    )
    height = _MARGIN_PX + (_title_height(title, note)) + sum(map(_block_height, blocks)) + 6
    picture = PIL.Image.new("RGB", (right + 2 * _MARGIN_PX, height), PAPER)
    pen = ImageDraw.Draw(picture)
    y = _MARGIN_PX
    if title:
        pen.text((_MARGIN_PX, y), title, INK, font(TITLE_PX))
        pen.text((_MARGIN_PX, y + TITLE_PX + 10), note, MUTED, font(TEXT_PX))
        y += _title_height(title, note)
    for block in blocks:
        _draw_block(picture, pen, block, indent, y)
        y += _block_height(block)
    return picture


def latent_strips(latents: NDArray[Any], limit: float | None = None) -> NDArray[np.uint8]:
    """Return latents [n, dim] as colour strips [n, 3, height, width], one cell per value.

    Blue is -limit, white 0, red +limit. The default limit is the 98th percentile of the absolute
    values. A strip has 16 values per line.
    """
    count, dim = latents.shape
    limit = limit or float(np.quantile(np.abs(latents), 0.98)) or 1.0
    lines = -(-dim // _CELLS_PER_LINE)
    per_line = min(dim, _CELLS_PER_LINE)
    padded = np.zeros((count, lines * per_line), np.float32)
    padded[:, :dim] = np.clip(latents.astype(np.float32) / limit, -1, 1)
    strength = padded.reshape(count, lines, per_line, 1)
    negative, zero, positive = _SCALE
    colours = np.where(
        strength < 0, zero + strength * (zero - negative), zero + strength * (positive - zero)
    )
    # Cell edges at whole pixels, so that a strip is exactly as wide as an image above it.
    cell = np.arange(_TILE_PX) * per_line // _TILE_PX
    strips = colours[:, :, cell].repeat(_STRIP_LINE_PX, axis=1)
    pixels: NDArray[np.uint8] = np.rint(strips).astype(np.uint8)
    return pixels.transpose(0, 3, 1, 2)


_Line = list[PIL.Image.Image]
_Block = tuple[Section, list[tuple[str, _Line]]]


def _tiles(section: Section, columns: int) -> list[tuple[str, _Line]]:
    """Return the lines of a section: a caption and the tiles beside it."""
    longest = max((len(row.images) for row in section.rows), default=0)
    return [
        (row.caption, [_tile(image, row.upscale) for image in row.images[start : start + columns]])
        for start in range(0, longest, columns)
        for row in section.rows
        if start < len(row.images)
    ]


def _tile(image: NDArray[Any], upscale: bool) -> PIL.Image.Image:
    tile = to_pil(image if image.ndim == 3 else image[np.newaxis])
    scale = max(1, round(_TILE_PX / max(tile.size))) if upscale else 1
    # Nearest: shows the pixels of the model; smoothing would hide their errors.
    size = (tile.width * scale, tile.height * scale)
    return tile.convert("RGB").resize(size, PIL.Image.Resampling.NEAREST)


def _line_width(line: _Line) -> int:
    return sum(tile.width + _GAP_PX for tile in line) - _GAP_PX


def _heading_width(heading: str, note: str) -> int:
    return round(font(HEADING_PX).getlength(heading) + 14 + font(TEXT_PX).getlength(note))


def _title_height(title: str, note: str) -> int:
    return (TITLE_PX + 22 + (TEXT_PX + 6 if note else 0)) if title else 0


def _block_height(block: _Block) -> int:
    section, lines = block
    heading = HEADING_PX + 16 if section.heading or section.note else 0
    return heading + sum(max(t.height for t in line) + _GAP_PX for _, line in lines) + 22


def _draw_block(
    picture: PIL.Image.Image, pen: ImageDraw.ImageDraw, block: _Block, indent: int, y: int
) -> None:
    section, lines = block
    if section.heading or section.note:
        after = _MARGIN_PX
        if section.heading:
            pen.text((_MARGIN_PX, y + HEADING_PX), section.heading, INK, font(HEADING_PX), "ls")
            after += round(font(HEADING_PX).getlength(section.heading)) + 14
        pen.text((after, y + HEADING_PX), section.note, MUTED, font(TEXT_PX), "ls")
        y += HEADING_PX + 7
        pen.line((_MARGIN_PX, y, picture.width - _MARGIN_PX, y), RULE)
        y += 9
    for caption, line in lines:
        height = max(tile.height for tile in line)
        label_right = _MARGIN_PX + indent - _LABEL_GAP_PX
        pen.text((label_right, y + height // 2), caption, MUTED, font(TEXT_PX), LABEL_ANCHOR)
        x = _MARGIN_PX + indent
        for tile in line:
            picture.paste(tile, (x, y))
            pen.rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline=RULE)
            x += tile.width + _GAP_PX
        y += height + _GAP_PX
