"""A matplotlib figure that notebooks display. Importing this module imports matplotlib."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

IMAGE_DPI = 300
"""Resolution of the image, higher than that of the display so that it is sharp on dense screens."""


class NotebookFigure(Figure):
    """A figure that a notebook displays as the value of a code cell, without pyplot or a magic command."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        png = BytesIO()
        self.savefig(png, format="png", dpi=IMAGE_DPI)
        width, height = self.get_size_inches() * self.dpi
        return png.getvalue(), {"width": round(float(width)), "height": round(float(height))}
