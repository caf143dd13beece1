"""The page of a results folder: `python -m cfg_lab.report results/default` writes report.html there."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cfg_lab.page import document
from cfg_lab.page.cards import packaged_cards
from cfg_lab.page.document import TOKEN_BUDGET
from cfg_lab.page.record import read_record
from cfg_lab.records import InputError
from cfg_lab.results import load_results
from cfg_lab.store import Store, StoreError


def report(folder: str | Path, output: str | Path | None = None, *, tokens: int = TOKEN_BUDGET) -> Path:
    """Write one HTML file that holds the results of a sweep, and return its path.

    Args:
        folder: of the results.
        output: the file; by default report.html in that folder.
        tokens: bytes that token views may take; what does not fit is left out, and the page says so.

    Raises:
        InputError: the folder holds no results, or the file cannot be written.
        StoreError: a file of the results is damaged.
    """
    store, path = Store(folder), Path(output or Path(folder) / "report.html")
    results = load_results(folder)
    cards = packaged_cards(list(map(str, results.columns)))
    page = document(results, read_record(store), cards, token_budget=tokens)
    draft = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(page, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"--output: {str(path)!r} cannot be written ({error.strerror})") from error
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 where a page was written, 2 where an argument or the results are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m cfg_lab.report", description="One HTML page of a sweep's results, to open from disk."
    )
    parser.add_argument("folder", help="results folder, such as results/default")
    parser.add_argument("--output", metavar="FILE", help="where to write it (default: FOLDER/report.html)")
    parser.add_argument(
        "--tokens",
        type=float,
        default=TOKEN_BUDGET / 1e6,
        metavar="MB",
        help="megabytes that the view of single tokens may take (default: %(default)g)",
    )
    given = parser.parse_args(arguments)
    try:
        print(report(given.folder, given.output, tokens=int(given.tokens * 1e6)))
    except (InputError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
