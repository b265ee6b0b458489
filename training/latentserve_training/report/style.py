"""Style of every picture: colours, text sizes, font and the side of row labels.

`latentserve_client.style` and `latentserve_training.report.style` are the same file, so that each
package installs alone; a test compares them.
"""

from __future__ import annotations

from PIL import ImageFont

PAPER = "#ffffff"
INK = "#1f2933"  # titles, names and metrics
MUTED = "#6b7785"  # row labels, notes and ticks
RULE = "#d5dbe1"  # lines between sections, grid lines, frames of images
ACCENT = "#0b6e99"  # the one curve or point cloud that a plot is about
SECONDARY = "#9aa5b1"  # the curve that it is compared with

# A diverging scale for signed values, blue below 0 and red above it, whose steps remain distinct in
# print and for colour-blind readers.
NEGATIVE, ZERO, POSITIVE = "#2166ac", "#f7f7f7", "#b2182b"

TITLE_PX, HEADING_PX, TEXT_PX = 26, 18, 13

# Row labels stand on the left of the images, and end at the same distance from them.
LABEL_ALIGNMENT = "right"  # for matplotlib
LABEL_ANCHOR = "rm"  # for Pillow


def font(size_px: float) -> ImageFont.FreeTypeFont:
    """Return the font that Pillow carries, Aileron Regular, so that no system font is needed.

    Raises RuntimeError where Pillow was built without FreeType; its wheels have it.
    """
    chosen = ImageFont.load_default(size=size_px)
    if not isinstance(chosen, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow has no FreeType; install a wheel of pillow from PyPI")
    return chosen
