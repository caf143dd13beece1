"""A figure that a notebook shows. Importing this brings matplotlib."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

SHARP = 300
"""Pixels an inch of what is sent, for dense screens; it is shown at the figure's own size."""


class NotebookFigure(Figure):
    """Shown where it is the last value of a cell, without pyplot or a magic."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        png = BytesIO()
        self.savefig(png, format="png", dpi=SHARP)
        width, height = self.get_size_inches() * self.dpi
        return png.getvalue(), {"width": round(float(width)), "height": round(float(height))}
