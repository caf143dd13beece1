"""Logs a results folder to a tracker: each cell that has changed, then the study as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
from rich.console import Console

from cfg_lab import analysis
from cfg_lab.analysis.frame import settings_by_cell
from cfg_lab.decoding.trace import DISTRIBUTIONS, TRACE_FIELDS
from cfg_lab.errors import InputError, StoreError, TrackingError
from cfg_lab.report.axes import cells_of, row_dicts
from cfg_lab.report.record import Record, read_record
from cfg_lab.report.roles import Roles, roles_of
from cfg_lab.report.token_packs import has_pieces
from cfg_lab.study.costs import total
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.results import load_results
from cfg_lab.study.store import Store
from cfg_lab.track import CellResult, StudyResult, Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERVIEW = "overview"
"""Name of the run that holds the study as a whole. All other runs have the id of their cell as name."""

EarlierLogs = Mapping[str, Mapping[str, Any]]
"""Content of the file tracked/<run>: destination -> {"digest": …, "folder": …}.

"digest" is a hash of the content that was logged. "folder" is the name of the run's folder on this machine,
if there is one.
"""


def mirror(
    store: Store, tracker: Tracker, console: Console, page: Path | None = None, *, everything: bool = False
) -> int:
    """Log the cells and the study, except those that have not changed since they were last logged.

    Args:
        store: the results folder. It also stores which runs were logged to which destination.
        page: the file report.html; None if it was not written.
        everything: whether to log runs that have not changed too.

    Returns:
        Number of runs that were logged.

    Raises:
        TrackingError: the tracker failed. Runs that were logged before the failure are not logged again.
        InputError, StoreError: the folder holds no results, or a file cannot be read or written.
    """
    try:
        destination = tracker.destination
        if destination is None:
            return 0
        snapshot = _Snapshot.of(store, load_results(store.root))
        return _mirror(snapshot, tracker, destination, console, page, everything)
    except (InputError, StoreError):
        raise
    except Exception as error:  # a library or a network can fail in any way
        raise TrackingError(f"tracking failed ({type(error).__name__}: {error})") from error


def _mirror(
    snapshot: _Snapshot,
    tracker: Tracker,
    destination: str,
    console: Console,
    page: Path | None,
    everything: bool,
) -> int:
    digests = {cell: _digest(tracker, label, snapshot.means[cell]) for cell, label in snapshot.labels.items()}
    digests[OVERVIEW] = _digest(tracker, digests, page is not None, snapshot.record.costs)
    earlier_logs = {run: _earlier_logs(snapshot.store, run) for run in digests}
    pending = [
        run
        for run in digests
        if everything or earlier_logs[run].get(destination, {}).get("digest") != digests[run]
    ]
    if not pending:
        return 0
    with ProgressBar(console, "tracking", len(pending), "runs") as bar:
        for run in pending:
            folders = {
                earlier: str(log["folder"]) for earlier, log in earlier_logs[run].items() if "folder" in log
            }
            if run == OVERVIEW:
                folder = tracker.log_study(snapshot.study_result(page, folders))
            else:
                folder = tracker.log_cell(snapshot.cell_result(run, tracker.token_rows, folders))
            log = {"digest": digests[run], **({"folder": folder.name} if folder else {})}
            logs = {**earlier_logs[run], destination: log}
            snapshot.store.write_text(f"tracked/{run}", json.dumps(logs, indent=1))
            bar.advance(1, note=run)
    return len(pending)


def _earlier_logs(store: Store, run: str) -> EarlierLogs:
    """Earlier logs of a run, as destination -> log, read from the file tracked/<run>.

    Empty if the file is missing or damaged.
    """
    try:
        content: Any = json.loads(store.read_text(f"tracked/{run}") or "{}")
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    logs = cast("dict[str, Any]", content)
    if isinstance(logs.get("destination"), str):  # the former format, with a single destination
        logs = {logs["destination"]: logs}
    return {
        destination: cast("Mapping[str, Any]", log)
        for destination, log in logs.items()
        if isinstance(log, dict)
    }


def _digest(tracker: Tracker, *content: object) -> str:
    """A hash of what a run logs: its content, and the tracker's settings that change what is logged."""
    return blake2b(
        repr((tracker.destination, tracker.token_rows, content)).encode(), digest_size=16
    ).hexdigest()


@dataclass(frozen=True)
class _Snapshot:
    """The results of a study at one moment. Everything that a tracker logs is made from these results.

    Attributes:
        results: one row per text, as `load_results` gives them.
        summary: one row per cell.
        metrics: names of the metrics of which at least one text has a score.
        labels: cell -> the settings in which the cell differs from other cells, as text.
        means: cell -> mean, ends of the interval and n of every metric.
    """

    store: Store
    results: pd.DataFrame
    record: Record
    summary: pd.DataFrame
    metrics: list[str]
    labels: dict[str, str]
    means: dict[str, dict[str, float]]

    @classmethod
    def of(cls, store: Store, results: pd.DataFrame) -> _Snapshot:
        """The snapshot of a results folder."""
        metrics = [name for name in analysis.metrics_of(results) if results[name].notna().any()]
        summary, cells = analysis.summary(results, metrics), cells_of(results)
        columns = [f"{name}{end}" for name in metrics for end in ("", "_low", "_high", "_n")]
        means = {str(row["cell"]): {name: row[name] for name in columns} for row in row_dicts(summary)}
        labels = dict(zip(cells.ids, cells.labels, strict=True))
        return cls(store, results, read_record(store), summary, metrics, labels, means)

    def cell_result(self, cell: str, token_rows: int, earlier_folders: Mapping[str, str]) -> CellResult:
        """The results of one cell, as a tracker logs them."""
        texts = self.results.loc[self.results["cell"] == cell]
        scored = [name for name in self.metrics if texts[name].notna().any()]
        settings = settings_by_cell(texts)[cell]
        return CellResult(
            study=self.record.name,
            cell=cell,
            label=self.labels[cell],
            settings={key: value for key, value in settings.items() if value is not None},
            summary=self.means[cell],
            texts=texts[["prompt_id", "prompt", "sample", "text", "finish_reason", *scored]],
            tokens=_token_table(texts, token_rows),
            folder=self.store.root,
            earlier_folders=earlier_folders,
        )

    def study_result(self, page: Path | None, earlier_folders: Mapping[str, str]) -> StudyResult:
        """The results of the study as a whole, as a tracker logs them."""
        roles = roles_of(self.metrics)
        try:
            comparisons = analysis.comparisons(self.results, roles.primary)
        except InputError:  # no cell is unguided
            comparisons = pd.DataFrame()
        return StudyResult(
            study=self.record.name,
            record={"command": self.record.command, **self.record.environment},
            costs=total(self.record.costs),
            summary=self.summary,
            comparisons=comparisons,
            figures=_figures(self.results, roles),
            page=page,
            folder=self.store.root,
            earlier_folders=earlier_folders,
        )


def _token_table(texts: pd.DataFrame, most_rows: int) -> pd.DataFrame:
    """One row per token. The table ends before the first text that does not fit into `most_rows` rows.

    A row shows the token's log-prob under each distribution and how much guidance changed it.
    """
    rows: list[dict[str, Any]] = []
    for _, text in texts.iterrows():
        if not has_pieces(text):  # an empty text, or a text of an older version of the lab
            continue
        if len(rows) + len(text["pieces"]) > most_rows:
            break
        rows += _token_rows(text)
    return pd.DataFrame(rows)


def _token_rows(text: pd.Series[Any]) -> Iterator[dict[str, Any]]:
    """One row per token of a text: its trace, and the likeliest tokens of each distribution."""
    for step, piece in enumerate(text["pieces"]):
        trace = {name: round(float(text[f"trace_{name}"][step]), 4) for name in TRACE_FIELDS}
        yield {
            "prompt_id": text["prompt_id"],
            "sample": text["sample"],
            "step": step,
            "token": piece,
            "moved": round(trace["guided"] - trace["positive"], 4),
            **trace,
            **{
                f"likeliest {name}": _likeliest(text.get(f"alternatives_{name}"), step)
                for name in DISTRIBUTIONS
            },
        }


def _likeliest(alternatives: Any, step: int) -> str:
    """The five likeliest tokens of a step with their log-probs in nats: "'the' -0.22, ' a' -2.10"."""
    if alternatives is None or step >= len(alternatives):
        return ""
    return ", ".join(
        f"{token['piece']!r} {float(token['log_prob']):.2f}" for token in islice(alternatives[step], 5)
    )


def _figures(results: pd.DataFrame, roles: Roles) -> dict[str, Figure]:
    """The figures: curves over the scale for each aim and price, and each aim against the first price.

    An aim is a metric that guidance is meant to improve. A price is a metric that guidance can make worse.
    `cfg_lab.report.roles` says which metrics are aims and prices.
    """
    figures = {name: analysis.scale_curves(results, name) for name in roles.primary}
    for aim in roles.aims:
        for price in roles.prices[:1]:
            figures[f"{aim} against {price}"] = analysis.trade_off(results, price, aim)
    return figures
