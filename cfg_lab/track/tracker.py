"""The interface of trackers, and the results that a tracker is given to log."""

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
    """The results of one cell, to be logged as one run.

    Attributes:
        study: name of the study.
        cell: id of the cell.
        label: the settings in which the cell differs from other cells of the study, as text: "negatives own,
            scale 2".
        settings: all settings of the cell by config key: {"guidance": "cfg", "guidance.scale": 1.5, …}.
        summary: for each metric m: its mean m, the ends of its 95 % interval m_low and m_high, and m_n, the
            number of scored texts.
        texts: one row per text, with its scores.
        tokens: one row per token, with the token's log-probs under each distribution. The table starts with
            the first text. It ends before the first text with which it would have more than
            `Tracker.token_rows` rows.
        folder: the results folder.
        earlier_folders: the folders that this run was logged to before: destination -> name of the folder.
            They are read from the results folder, which may come from somebody else: do not trust them.
    """

    study: str
    cell: str
    label: str
    settings: Mapping[str, Any]
    summary: Mapping[str, float]
    texts: pd.DataFrame
    tokens: pd.DataFrame
    folder: Path
    earlier_folders: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """The results of a study as a whole, to be logged as one run beside the runs of its cells.

    Attributes:
        study: name of the study.
        record: how the study was run: command, versions of packages, machine.
        costs: time, work and memory of decoding: texts, tokens_per_second, peak_memory and more.
        summary: one row per cell: its settings, and mean and interval of each metric.
        comparisons: one row per cell and metric: the difference from decoding without guidance. Empty if
            no cell of the study is unguided.
        figures: the figures by name.
        page: the file report.html; None if it was not written.
        folder, earlier_folders: as in `CellResult`.
    """

    study: str
    record: Mapping[str, Any]
    costs: Mapping[str, float]
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    figures: Mapping[str, Figure]
    page: Path | None
    folder: Path
    earlier_folders: Mapping[str, str]


class ProgressLog(Protocol):
    """Logs how far a sweep is while it goes on. Both methods may raise any exception."""

    def log(self, values: Mapping[str, float]) -> None:
        """Log numbers of one moment.

        Args:
            values: number by name, such as "texts_done". "seconds" is the x axis: the time in seconds since
                the submission of the sweep began.
        """
        ...

    def close(self) -> None:
        """Write what is not yet written."""
        ...


class Tracker(Protocol):
    """Logs results to a service where they can be compared with the results of other studies.

    `mirror` calls `log_cell` for every cell that has changed, then `log_study`. `track/progress.py` calls
    `open_progress`. All three methods may raise any exception: the results on disk are complete without the
    tracker, and the command goes on.
    """

    @property
    def name(self) -> str:
        """Name of the tracking service, as the commands print it: "TensorBoard"."""
        ...

    @property
    def destination(self) -> str | None:
        """The project or folder that runs are logged to, as text; None if the tracker logs nothing.

        A run that was logged to a destination is not logged there again until it changes.
        """
        ...

    @property
    def token_rows(self) -> int:
        """Largest number of rows in a cell's table of tokens."""
        ...

    @property
    def retry_hint(self) -> str:
        """What a user adds to `python -m cfg_lab.track RESULTS` to log again after an error."""
        ...

    def local_path(self, results: Path) -> Path | None:
        """The folder on this machine with the logged runs of a results folder; None if there is none."""
        ...

    def log_cell(self, result: CellResult) -> Path | None:
        """Log one cell, in place of its earlier run at the same destination.

        Returns:
            The folder of the run on this machine; None if there is none.
        """
        ...

    def log_study(self, result: StudyResult) -> Path | None:
        """Log the study as a whole. Returns the folder of the study's run, as `log_cell` does for a cell."""
        ...

    def open_progress(self, study: str, submission: str, folder: Path) -> ProgressLog:
        """Begin to log the progress of a sweep, or go on with it if an earlier process has begun.

        Args:
            study: name of the study.
            submission: id of the submission. Each has a run of its own.
            folder: the results folder.
        """
        ...


@dataclass(frozen=True)
class NoProgress:
    """Logs no progress."""

    def log(self, values: Mapping[str, float]) -> None:
        return None

    def close(self) -> None:
        return None


@dataclass(frozen=True)
class NoTracker:
    """Logs nothing: the option tracking=none."""

    name = "no tracker"
    destination = None
    token_rows = 0
    retry_hint = ""

    def local_path(self, results: Path) -> None:
        return None

    def log_cell(self, result: CellResult) -> None:
        return None

    def log_study(self, result: StudyResult) -> None:
        return None

    def open_progress(self, study: str, submission: str, folder: Path) -> NoProgress:
        return NoProgress()
