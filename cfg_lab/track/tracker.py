"""What a tracker is, and what it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A cell as a tracker sees it.

    Attributes:
        study: name of the study it belongs to.
        cell: its id.
        label: what tells it from the study's other cells, for people.
        settings: its config, flat: {"guidance": "cfg", "guidance.scale": 1.5, …}.
        summary: of every metric m its mean m, the ends of its 95 % interval m_low and m_high, and m_n.
        texts: a row a text, with its scores.
        tokens: a row a token of the first texts, with what guidance did to it.
        folder: of the results.
    """

    study: str
    cell: str
    label: str
    settings: Mapping[str, Any]
    summary: Mapping[str, float]
    texts: pd.DataFrame
    tokens: pd.DataFrame
    folder: Path


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """All cells together.

    Attributes:
        study: its name.
        record: what ran: command, versions, machine.
        costs: what decoding took: texts, tokens_per_second, peak_memory, ….
        summary: a row a cell.
        comparisons: a row a metric of a cell, beside decoding without guidance; empty without such a cell.
        figures: by name.
        page: report.html, None where none was written.
        folder: of the results.
    """

    study: str
    record: Mapping[str, Any]
    costs: Mapping[str, float]
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    figures: Mapping[str, Figure]
    page: Path | None
    folder: Path


class Tracker(Protocol):
    """Shown every cell that changed, then the study. May raise anything: the sweep goes on.

    Attributes:
        destination: where it mirrors to; another one has seen nothing yet. None: nowhere.
        token_rows: how many rows of tokens it takes of a cell at most.

    What is logged returns the folder it lies in on this disk, None where it does not.
    """

    @property
    def destination(self) -> str | None: ...

    @property
    def token_rows(self) -> int: ...

    def log_cell(self, result: CellResult) -> Path | None: ...

    def log_study(self, result: StudyResult) -> Path | None: ...


@dataclass(frozen=True)
class NoTracker:
    """tracking=none."""

    @property
    def destination(self) -> None:
        """Nowhere."""

    @property
    def token_rows(self) -> int:
        return 0

    def log_cell(self, result: CellResult) -> None:
        """Nothing is logged."""

    def log_study(self, result: StudyResult) -> None:
        """Nothing is logged."""
