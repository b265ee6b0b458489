"""Draws docs/calls.png, the picture at the top of README.md: the five calls, side by side.

Start a server with `latentserve-server`, then run `python docs/draw_calls.py`. Every image comes
from the reply of a call to that server. The file is twice as wide as GitHub shows it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from latentserve_client import Client, digits
from latentserve_client.grid import latent_strips
from latentserve_client.noise import add_noise, psnr_db

DIGITS = (3, 1, 4, 2, 9, 5)
NOISE_SIGMA = 0.5
SEED = 7

SCALE = 2  # device pixels of one layout pixel
PANEL_PX, GAP_PX, MARGIN_PX = 152, 12, 12
TILE_PX, TILE_GAP_PX = 48, 4
COLUMNS = 3
CELLS_PER_LINE = 5  # the 20 latents of an image become a square of 4 x 5 cells
BLOCK_PX = 2 * TILE_PX + TILE_GAP_PX  # two rows of tiles
NAME_Y, IN_Y, IN_TILES_Y = 24, 46, 54
OUT_Y = IN_TILES_Y + BLOCK_PX + 26
OUT_TILES_Y = OUT_Y + 8
NOTE_Y = OUT_TILES_Y + BLOCK_PX + 18
HEIGHT_PX = NOTE_Y + 14

PAPER, INK, FAINT, LINE, ACCENT = "#ffffff", "#1f2933", "#52606d", "#d5dbe1", "#2166ac"


@dataclass(frozen=True, eq=False)
class Panel:
    """One call: its name, what goes in, what comes out."""

    call: str
    request: str
    sent: NDArray[Any] | str  # images [n, c, h, w], or the text of a request without images
    reply: str
    received: NDArray[Any]
    note: str


def main() -> None:
    """Make the calls and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("calls.png"))
    args = parser.parse_args()
    with Client(args.server, timeout_s=10) as client:
        draw(make_calls(client)).save(args.out, optimize=True)


def make_calls(client: Client) -> list[Panel]:
    """Call the server; the notes state what the replies gave."""
    bundled = digits.bundled()
    first = [int(np.flatnonzero(bundled.labels == digit)[0]) for digit in DIGITS]
    x = bundled.images[first][:, np.newaxis]  # uint8 [6, 1, 28, 28]
    clean = x.astype(np.float32) / np.float32(255)
    z = client.encode(x, model="mnist-vae").latents
    lines = latent_strips(z.reshape(-1, CELLS_PER_LINE))  # uint8 [6 * 4, 3, height, width]
    grids = lines.reshape(len(z), -1, *lines.shape[1:]).swapaxes(1, 2)
    strips = grids.reshape(len(z), 3, -1, lines.shape[-1])
    decoded = client.decode(z, model="mnist-vae").images
    rebuilt = client.reconstruct(x, model="mnist-ae")
    noisy = add_noise(clean, NOISE_SIGMA, seed=0)
    denoised = client.denoise(noisy, model="mnist-dae").images
    new = client.sample(len(DIGITS), model="mnist-ae", seed=SEED).images
    error = float(np.mean(np.square(decoded - clean)))
    gain = f"PSNR {psnr_db(noisy, clean):.1f} to {psnr_db(denoised, clean):.1f} dB"
    count = f"count {len(DIGITS)}\nseed {SEED}"
    return [
        Panel("Encode", "images", x, "latents", strips, f"{z.shape[1]} values per image"),
        Panel("Decode", "latents", strips, "images", decoded, f"MSE {error:.4f}"),
        Panel(
            "Reconstruct", "images", x, "images", rebuilt.images, f"MSE {rebuilt.mse.mean():.4f}"
        ),
        Panel("Denoise", "noisy images", noisy, "clean images", denoised, gain),
        Panel("Sample", "a count and a seed", count, "new images", new, "same seed, same images"),
    ]


def draw(panels: Sequence[Panel]) -> Image.Image:
    """Return the panels side by side: the request above, the reply below."""
    width = 2 * MARGIN_PX + len(panels) * PANEL_PX + (len(panels) - 1) * GAP_PX
    picture = Image.new("RGB", (width * SCALE, HEIGHT_PX * SCALE), PAPER)
    pen = ImageDraw.Draw(picture)
    for index, panel in enumerate(panels):
        x = MARGIN_PX + index * (PANEL_PX + GAP_PX)
        if index:
            line_x = (x - GAP_PX // 2) * SCALE
            pen.line((line_x, 8 * SCALE, line_x, (HEIGHT_PX - 8) * SCALE), LINE, SCALE)
        _write(pen, x, NAME_Y, panel.call, INK, 19)
        _write(pen, x, IN_Y, panel.request, FAINT, 13)
        if isinstance(panel.sent, str):
            _write_request(pen, x, IN_TILES_Y, panel.sent)
        else:
            _paste(picture, pen, x, IN_TILES_Y, panel.sent)
        _draw_arrow(pen, x, OUT_Y)
        _write(pen, x + 16, OUT_Y, panel.reply, ACCENT, 13)
        _paste(picture, pen, x, OUT_TILES_Y, panel.received)
        _write(pen, x, NOTE_Y, panel.note, FAINT, 12)
    return picture


def _write(pen: ImageDraw.ImageDraw, x: int, y: int, text: str, ink: str, size_px: int) -> None:
    font = ImageFont.load_default(size=size_px * SCALE)
    pen.text((x * SCALE, y * SCALE), text, ink, font, "ls")


def _write_request(pen: ImageDraw.ImageDraw, x: int, y: int, text: str) -> None:
    """Write a request that has no images into a box of the size of the images."""
    width = COLUMNS * TILE_PX + (COLUMNS - 1) * TILE_GAP_PX
    box = (x * SCALE, y * SCALE, (x + width) * SCALE - 1, (y + BLOCK_PX) * SCALE - 1)
    pen.rounded_rectangle(box, 6 * SCALE, outline=LINE, width=SCALE)
    middle = ((x + width / 2) * SCALE, (y + BLOCK_PX / 2) * SCALE)
    font = ImageFont.load_default(size=17 * SCALE)
    pen.multiline_text(middle, text, INK, font, "mm", spacing=8 * SCALE, align="center")


def _draw_arrow(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """Draw an arrow that points down, on the left of the reply's name."""
    middle, top, bottom = (x + 5) * SCALE, (y - 12) * SCALE, (y + 2) * SCALE
    head = 5 * SCALE
    pen.line((middle, top, middle, bottom - head), ACCENT, 2 * SCALE)
    pen.polygon(
        ((middle - head, bottom - head), (middle + head, bottom - head), (middle, bottom)), ACCENT
    )


def _paste(
    picture: Image.Image, pen: ImageDraw.ImageDraw, x: int, y: int, images: NDArray[Any]
) -> None:
    """Paste images [n, c, h, w] in rows of three, each scaled to one tile."""
    for index, image in enumerate(images):
        left = (x + (index % COLUMNS) * (TILE_PX + TILE_GAP_PX)) * SCALE
        top = (y + (index // COLUMNS) * (TILE_PX + TILE_GAP_PX)) * SCALE
        # Nearest neighbour: smoothing would hide the pixels that the model returned.
        side = TILE_PX * SCALE
        tile = _to_pil(image).resize((side, side), Image.Resampling.NEAREST)
        picture.paste(tile, (left, top))
        pen.rectangle((left, top, left + side - 1, top + side - 1), outline=LINE)


def _to_pil(image: NDArray[Any]) -> Image.Image:
    pixels = image if image.dtype == np.uint8 else np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    planes = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
    return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))


if __name__ == "__main__":
    main()
