"""Console output of the commands: tables, warnings, paths and errors."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cfg_lab.errors import InputError, ModelError, StoreError, TrackingError


def open_console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr. In a pipe and in a notebook it prints plain lines.

    A command that a notebook runs with `!` always prints to stdout, because a notebook shows stderr as an
    error. Such a command prints plain lines, because a notebook keeps every redrawing of a progress bar as
    one more line.
    """
    notebook = "JPY_PARENT_PID" in os.environ  # a notebook's kernel sets it
    return Console(
        stderr=stderr and not notebook, force_jupyter=False, force_terminal=False if notebook else None
    )


def show_warnings(console: Console) -> None:
    """From now on, print each Python warning once, as a sentence without file name and line of code."""
    printed: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) in printed:
            return
        printed.add(str(message))
        console.print(f"warning: {message}", style="yellow", markup=False, highlight=False)

    warnings.showwarning = show


def fitting_table(
    labels: Sequence[Mapping[str, str]],
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    console: Console,
) -> Table:
    """A table with one row per cell and as many metrics as fit the console's width, at least one.

    Args:
        labels: for each cell, the settings in which it differs from other cells.
        rows: for each cell, its row of the summary.
        columns: names of the metrics' columns, the most important first.
    """
    unbounded = console.options.update(width=10_000)
    shown = len(columns)
    while (
        shown > 1
        and _table(labels, rows, columns, shown).__rich_measure__(console, unbounded).maximum > console.width
    ):
        shown -= 1
    return _table(labels, rows, columns, shown)


def _table(
    labels: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, Any]], columns: Sequence[str], shown: int
) -> Table:
    """Make a table with one row per cell.

    A row has the cell's label, n (number of texts), and mean and interval for each of the first `shown`
    metric columns.
    """
    table = Table(header_style="bold", row_styles=["", "on grey11"], caption_justify="left")
    for key in labels[0]:
        table.add_column(key.removeprefix("guidance."), overflow="fold")  # Chinese has no spaces to wrap at
    table.add_column("n", justify="right")
    for column in columns[:shown]:
        table.add_column(column, justify="right", no_wrap=True)
    for label, row in zip(labels, rows, strict=True):
        table.add_row(
            *map(escape, label.values()),  # "[rescale]" is the name of a setting, not markup
            str(row["texts"]),
            *(_estimate(row, column) for column in columns[:shown]),
        )
    table.caption = "mean over n texts, [95 % interval] over prompts"
    if hidden := columns[shown:]:
        table.caption += f"\nsummary.parquet also has {', '.join(hidden)}"
    return table


def _estimate(row: Mapping[str, Any], column: str) -> str:
    """Mean and interval of a metric in one cell, as text.

    If only some texts of the cell have a score, the text also gives n, the number of scored texts.
    """
    mean, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    text = f"{mean:.3g}" if math.isfinite(mean) else "no score"
    if math.isfinite(low) and math.isfinite(high):
        text += f"\n[dim]\\[{low:.3g}, {high:.3g}][/]"
    scored = row[f"{column}_n"]
    return text if scored == row["texts"] or not scored else f"{text}\n[dim]n = {scored}[/]"


def print_paths(console: Console, paths: Mapping[str, Path]) -> None:
    """Print the paths that exist. Each line has the name and the path: `paths` is name -> path."""
    existing = {name: path for name, path in paths.items() if path.exists()}
    width = max(map(len, existing), default=0)
    for name, path in existing.items():
        console.print(f"{name:{width}}  {path}", highlight=False, soft_wrap=True)


def print_error(console: Console, sentence: str) -> None:
    """Print an error of one sentence."""
    console.print("error:", style="bold red", end=" ")
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def errors_in_a_sentence() -> Generator[None]:
    """If the user can correct an error, print it in one sentence without a traceback; exit with status 2.

    Ctrl-C exits with status 130. Other errors pass through.
    """
    errors = open_console(stderr=True)
    try:
        yield
    except (InputError, ModelError, StoreError, TrackingError) as error:
        print_error(errors, str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("\nStopped. Finished texts and scores are stored.", highlight=False)
        errors.print("Run the same command again to continue.", highlight=False)
        sys.exit(130)
