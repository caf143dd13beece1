"""The size of a study, which the sentences about its findings mention."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The size of a study.

    Attributes:
        labels: name of each cell.
        unguided: number of cells in which no text was decoded with a negative.
        prompts: number of distinct prompts (see `analysis.frame`). Intervals are computed over them.
        texts, planned: how many texts exist and how many were planned, over all cells.
        comparisons: number of comparisons of aims and prices. One Holm correction covers all of them.
    """

    labels: tuple[str, ...]
    unguided: int
    prompts: int
    texts: int
    planned: int
    comparisons: int

    def label(self, cell: int) -> str:
        """Return the name of a cell in bold."""
        return f"<b>{escape(self.labels[cell])}</b>"
