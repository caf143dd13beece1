"""Where programs speak to people."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cfg_lab.errors import InputError, StoreError, TrackingError


def open_console(*, stderr: bool = False) -> Console:
    """The terminal, or plain lines where there is none: in a pipe and in a notebook.

    A notebook's `!` looks like a terminal but keeps every movement of a bar as a line, and what comes from
    stderr a notebook shows as an alarm: so there all goes to stdout.
    """
    notebook = "JPY_PARENT_PID" in os.environ  # what a kernel starts with
    return Console(
        stderr=stderr and not notebook, force_jupyter=False, force_terminal=False if notebook else None
    )


def show_warnings(console: Console) -> None:
    """Warnings as a sentence of the program, not as a line of its code; each once."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) in said:
            return
        said.add(str(message))
        console.print(f"warning: {message}", style="yellow", markup=False, highlight=False)

    warnings.showwarning = show


def fitting_table(
    labels: Sequence[Mapping[str, str]],
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    console: Console,
) -> Table:
    """A row a cell, with as many of the summary's columns as the terminal is wide enough for, at least one.

    Args:
        labels: of each cell, what tells it from the others.
        rows: of the summary, a cell each.
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
    """Labels, n, and mean and interval of the first `shown` columns."""
    left = f"; {', '.join(columns[shown:])}: see summary.parquet" if columns[shown:] else ""
    table = Table(header_style="bold", row_styles=["", "on grey11"], caption_justify="left")
    for key in labels[0]:
        table.add_column(key.removeprefix("guidance."))
    table.add_column("n", justify="right")
    for column in columns[:shown]:
        table.add_column(column, justify="right", no_wrap=True)
    for label, row in zip(labels, rows, strict=True):
        table.add_row(
            *label.values(), str(row["texts"]), *(_estimate(row, column) for column in columns[:shown])
        )
    table.caption = f"mean over n texts, [95 % interval] over prompts{left}"
    return table


def _estimate(row: Mapping[str, Any], column: str) -> str:
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{row[column]:.3g}\n[dim]\\[{low:.3g}, {high:.3g}][/]"


def print_paths(console: Console, paths: Mapping[str, Path]) -> None:
    """Where things are, of those that are there."""
    for what, path in paths.items():
        if path.exists():
            console.print(f"{what:8} {path}", highlight=False, soft_wrap=True)


@contextmanager
def errors_in_a_sentence() -> Generator[None]:
    """Errors a user can mend are said without a traceback, and end the program."""
    from cfg_lab.decoding.model import NotANumberError

    errors = open_console(stderr=True)
    try:
        yield
    except (InputError, NotANumberError, StoreError, TrackingError) as error:
        errors.print("error:", style="bold red", end=" ")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("\nstopped. What was finished is kept; the same command goes on from there.")
        sys.exit(130)
