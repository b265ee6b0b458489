"""Pictures for people: rows of images with captions, drawn with Pillow alone.

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
from PIL import ImageDraw, ImageFont

from latentserve_client._results import to_pil

_PAPER = "#ffffff"
_INK = "#1f2933"
_FAINT = "#6b7785"
_LINE = "#d5dbe1"
_TITLE_PX, _HEADING_PX, _TEXT_PX = 26, 18, 13
_MARGIN_PX = 28
_GAP_PX = 6  # between tiles
_TILE_PX = 84  # what small images are enlarged to, about
_CELLS_PER_LINE = 16  # of a latent strip
_STRIP_LINE_PX = 20

# From blue over white to red, in steps that stay apart in print and for colour-blind readers.
_COLD, _MIDDLE, _HOT = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], np.float32)


@dataclass(frozen=True, eq=False)
class Row:
    """Tiles beside each other, with a caption on their left."""

    caption: str
    images: NDArray[Any]  # [n, c, h, w] or grey [n, h, w]; uint8, or float in [0, 1] (clipped)
    upscale: bool = True  # latent strips are drawn at their size already


@dataclass(frozen=True, eq=False)
class Section:
    """Rows whose columns belong together, under a heading."""

    heading: str
    note: str  # small, beside the heading
    rows: tuple[Row, ...]


def draw(
    sections: Sequence[Section], *, title: str = "", note: str = "", columns: int = 10
) -> PIL.Image.Image:
    """Return a picture of the sections below each other.

    Rows with more than `columns` images go on in the next block, all rows of a section together.
    """
    blocks = [(section, _tiles(section, columns)) for section in sections]
    captions = [row.caption for section in sections for row in section.rows]
    indent = round(max((_font(_TEXT_PX).getlength(c) for c in captions), default=0))
    indent += 14 if indent else 0
    right = max(
        [indent + _line_width(line) for _, lines in blocks for _, line in lines]
        + [_heading_width(section.heading, section.note) for section in sections]
        + [round(_font(_TITLE_PX).getlength(title)), round(_font(_TEXT_PX).getlength(note))]
    )
    height = _MARGIN_PX + (_title_height(title, note)) + sum(map(_block_height, blocks)) + 6
    picture = PIL.Image.new("RGB", (right + 2 * _MARGIN_PX, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    y = _MARGIN_PX
    if title:
        pen.text((_MARGIN_PX, y), title, _INK, _font(_TITLE_PX))
        pen.text((_MARGIN_PX, y + _TITLE_PX + 10), note, _FAINT, _font(_TEXT_PX))
        y += _title_height(title, note)
    for block in blocks:
        _draw_block(picture, pen, block, indent, y)
        y += _block_height(block)
    return picture


def latent_strips(latents: NDArray[Any], limit: float | None = None) -> NDArray[np.uint8]:
    """Return latents [n, dim] as colour strips [n, 3, height, width], one cell per value.

    Blue is -limit, white 0, red +limit. The limit is that of nearly all values where none is
    given. More than 16 values go on in the next line.
    """
    count, dim = latents.shape
    limit = limit or float(np.quantile(np.abs(latents), 0.98)) or 1.0
    lines = -(-dim // _CELLS_PER_LINE)
    per_line = min(dim, _CELLS_PER_LINE)
    padded = np.zeros((count, lines * per_line), np.float32)
    padded[:, :dim] = np.clip(latents.astype(np.float32) / limit, -1, 1)
    strength = padded.reshape(count, lines, per_line, 1)
    colours = np.where(
        strength < 0, _MIDDLE + strength * (_MIDDLE - _COLD), _MIDDLE + strength * (_HOT - _MIDDLE)
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
    # Nearest: the pixels are what the model saw and made; smoothing would flatter it.
    size = (tile.width * scale, tile.height * scale)
    return tile.convert("RGB").resize(size, PIL.Image.Resampling.NEAREST)


def _line_width(line: _Line) -> int:
    return sum(tile.width + _GAP_PX for tile in line) - _GAP_PX


def _heading_width(heading: str, note: str) -> int:
    return round(_font(_HEADING_PX).getlength(heading) + 14 + _font(_TEXT_PX).getlength(note))


def _title_height(title: str, note: str) -> int:
    return (_TITLE_PX + 22 + (_TEXT_PX + 6 if note else 0)) if title else 0


def _block_height(block: _Block) -> int:
    section, lines = block
    heading = _HEADING_PX + 16 if section.heading or section.note else 0
    return heading + sum(max(t.height for t in line) + _GAP_PX for _, line in lines) + 22


def _draw_block(
    picture: PIL.Image.Image, pen: ImageDraw.ImageDraw, block: _Block, indent: int, y: int
) -> None:
    section, lines = block
    if section.heading or section.note:
        after = _MARGIN_PX
        if section.heading:
            pen.text((_MARGIN_PX, y + _HEADING_PX), section.heading, _INK, _font(_HEADING_PX), "ls")
            after += round(_font(_HEADING_PX).getlength(section.heading)) + 14
        pen.text((after, y + _HEADING_PX), section.note, _FAINT, _font(_TEXT_PX), "ls")
        y += _HEADING_PX + 7
        pen.line((_MARGIN_PX, y, picture.width - _MARGIN_PX, y), _LINE)
        y += 9
    for caption, line in lines:
        height = max(tile.height for tile in line)
        pen.text((_MARGIN_PX, y + height // 2), caption, _FAINT, _font(_TEXT_PX), "lm")
        x = _MARGIN_PX + indent
        for tile in line:
            picture.paste(tile, (x, y))
            pen.rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline=_LINE)
            x += tile.width + _GAP_PX
        y += height + _GAP_PX


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)
