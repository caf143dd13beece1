"""Showing a tracker what is in a results folder: each cell that changed, then the study as a whole."""

from __future__ import annotations

import json
import re
import shutil
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


def mirror(
    store: Store, tracker: Tracker, console: Console, page: Path | None = None, *, everything: bool = False
) -> int:
    """Show a tracker every cell that it has not seen as it is now, and the study where any of it changed.

    Args:
        page: report.html, where it was written.
        everything: also what it has seen.

    Returns:
        How many runs were logged.

    Raises:
        TrackingError: the tracker failed; what it was shown before stays.
        InputError, StoreError: the folder holds no results, or cannot be read or written.
    """
    if tracker.destination is None:
        return 0
    shown = _Shown.of(store, load_results(store.root))
    try:
        return _mirror(shown, tracker, console, page, everything)
    except (InputError, StoreError):
        raise
    except Exception as error:  # whatever a library or a network may come up with
        raise TrackingError(f"tracking failed ({type(error).__name__}: {error})") from error


def _mirror(shown: _Shown, tracker: Tracker, console: Console, page: Path | None, everything: bool) -> int:
    digests = {cell: _digest(tracker, label, shown.means[cell]) for cell, label in shown.labels.items()}
    digests[OVERVIEW] = _digest(tracker, digests, page is not None, shown.record.costs)
    seen = {name: _seen(shown.store, name) for name in digests}
    waiting = [name for name in digests if everything or seen[name].get("digest") != digests[name]]
    if not waiting:
        return 0
    with ProgressBar(console, "tracking", len(waiting), "runs") as bar:
        for name in waiting:
            if name == OVERVIEW:
                folder = tracker.log_study(shown.overview(page))
            else:
                folder = tracker.log_cell(shown.cell(name, tracker.token_rows))
            _forget(shown.store, seen[name], tracker.destination, folder)
            now = {"digest": digests[name], "destination": tracker.destination}
            now |= {"folder": folder.name} if folder else {}
            shown.store.write_text(f"tracked/{name}", json.dumps(now, indent=1))
            bar.advance(1, note=name)
    return len(waiting)


def _seen(store: Store, name: str) -> Mapping[str, Any]:
    """What was kept of the last time that this was shown; nothing where that is unreadable."""
    try:
        kept = json.loads(store.read_text(f"tracked/{name}") or "{}")
    except ValueError:
        return {}
    return cast("Mapping[str, Any]", kept) if isinstance(kept, dict) else {}


def _forget(store: Store, before: Mapping[str, Any], destination: str | None, folder: Path | None) -> None:
    """Remove the offline run that what was just logged takes the place of: both would go up under one id.

    What was kept of it is not trusted: the folder may be somebody else's.
    """
    name, place = str(before.get("folder")), str(before.get("destination"))
    same = place.partition(" ")[2] == str(destination).partition(" ")[2]  # offline before, online now
    replaced = same and re.fullmatch(r"offline-run-[\w.-]+", name) and (not folder or folder.name != name)
    old = store.root / "wandb" / name
    if replaced and old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)


def _digest(tracker: Tracker, *shown: object) -> str:
    return blake2b(
        repr((tracker.destination, tracker.token_rows, shown)).encode(), digest_size=16
    ).hexdigest()


@dataclass(frozen=True)
class _Shown:
    """What a tracker is shown of some results.

    Attributes:
        metrics: names of those that are scored.
        labels: of each cell.
        means: of each cell, metrics with intervals and n.
    """

    store: Store
    results: pd.DataFrame
    record: Record
    summary: pd.DataFrame
    metrics: list[str]
    labels: dict[str, str]
    means: dict[str, dict[str, float]]

    @classmethod
    def of(cls, store: Store, results: pd.DataFrame) -> _Shown:
        metrics = [name for name in analysis.metrics_of(results) if results[name].notna().any()]
        summary, cells = analysis.summary(results, metrics), cells_of(results)
        columns = [f"{name}{end}" for name in metrics for end in ("", "_low", "_high", "_n")]
        means = {str(row["cell"]): {name: row[name] for name in columns} for row in row_dicts(summary)}
        labels = dict(zip(cells.ids, cells.labels, strict=True))
        return cls(store, results, read_record(store), summary, metrics, labels, means)

    def cell(self, cell: str, token_rows: int) -> CellResult:
        own = self.results.loc[self.results["cell"] == cell]
        scored = [name for name in self.metrics if own[name].notna().any()]
        settings = settings_by_cell(own)[cell]
        return CellResult(
            study=self.record.name,
            cell=cell,
            label=self.labels[cell],
            settings={key: value for key, value in settings.items() if value is not None},
            summary=self.means[cell],
            texts=own[["prompt_id", "prompt", "sample", "text", "finish_reason", *scored]],
            tokens=_tokens(own, token_rows),
            folder=self.store.root,
        )

    def overview(self, page: Path | None) -> StudyResult:
        roles = roles_of(self.metrics)
        try:
            compared = analysis.comparisons(self.results, roles.primary)
        except InputError:  # no cell is unguided
            compared = pd.DataFrame()
        return StudyResult(
            study=self.record.name,
            record={"command": self.record.command, **self.record.environment},
            costs=total(self.record.costs),
            summary=self.summary,
            comparisons=compared,
            figures=_figures(self.results, roles),
            page=page,
            folder=self.store.root,
        )


def _tokens(cell: pd.DataFrame, most: int) -> pd.DataFrame:
    """What guidance did to each token of the first texts; whole texts, as many as fit in so many rows."""
    rows: list[dict[str, Any]] = []
    for _, text in cell.iterrows():
        if not has_pieces(text) or len(rows) + len(text["pieces"]) > most:
            break
        rows += _steps(text)
    return pd.DataFrame(rows)


def _steps(text: pd.Series[Any]) -> Iterator[dict[str, Any]]:
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


def _likeliest(kept: Any, step: int) -> str:
    """ "the −0.22, a −2.1": tokens with their log-probs, nats."""
    if kept is None or step >= len(kept):
        return ""
    return ", ".join(f"{one['piece']!r} {float(one['log_prob']):.2f}" for one in islice(kept[step], 5))


def _figures(results: pd.DataFrame, roles: Roles) -> dict[str, Figure]:
    """Curves of every metric of the main comparison, and each aim against the first price."""
    figures = {name: analysis.scale_curves(results, name) for name in roles.primary}
    for aim in roles.aims:
        for price in roles.prices[:1]:
            figures[f"{aim} against {price}"] = analysis.trade_off(results, price, aim)
    return figures
