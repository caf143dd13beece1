"""Converts figures to images."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_of(figure: Figure) -> Image.Image:
    """Convert a figure to an image with 200 dots per inch."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=200)
    return Image.open(png)
