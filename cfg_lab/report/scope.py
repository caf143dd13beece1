"""The size of a study, which the sentences about its findings mention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
        prompts_of_tasks: number of distinct prompts of each task of a benchmark of several tasks.
    """

    labels: tuple[str, ...]
    unguided: int
    prompts: int
    texts: int
    planned: int
    comparisons: int
    prompts_of_tasks: Mapping[str, int] = field(default_factory=dict[str, int])

    def of_task(self, task: str) -> Scope:
        """Return the scope of the findings of one task."""
        return replace(self, prompts=self.prompts_of_tasks.get(task, self.prompts))

    def label(self, cell: int) -> str:
        """Return the name of a cell in bold."""
        return f"<b>{escape(self.labels[cell])}</b>"
