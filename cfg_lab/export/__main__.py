"""Write the texts of a sweep as a dataset and as CSV: `python -m cfg_lab.export results/default`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from cfg_lab.study.console import errors_in_a_sentence, open_console, print_paths, show_warnings

_USAGE = """Writes the texts of a sweep for other programs: with their prompts, settings and scores.

  python -m cfg_lab.export results/default
  python -m cfg_lab.export results/default --output shared/study --columns prompt text sentiment
  python -m cfg_lab.export results/default --cells 1f0c6a2b7d3e4f50 --columns all

The folder holds a dataset for datasets.load_from_disk, texts.csv, and a data card, README.md."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the export of a results folder."""
    parser = ArgumentParser(
        "python -m cfg_lab.export", description=_USAGE, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="results folder of a sweep")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="folder to write (default: export in the results folder); an earlier export there is replaced",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="COLUMN",
        help="columns to write, or all; by default all but those with one entry per token "
        "(pieces, trace_…, alternatives_…)",
    )
    parser.add_argument(
        "--cells",
        nargs="+",
        metavar="CELL",
        help="ids of the cells to export, as in summary.parquet; by default all",
    )
    options = parser.parse_args(arguments)
    with errors_in_a_sentence():
        run(options.results, options.output, options.columns, options.cells)


def run(
    results: str,
    output: str | None = None,
    columns: Sequence[str] | None = None,
    cells: Sequence[str] | None = None,
) -> Path:
    """Write the export of a results folder, and print its paths. Arguments and errors are as in `export`."""
    from cfg_lab.export.folder import CARD, CSV
    from cfg_lab.export.write import export

    console = open_console()
    show_warnings(console)
    folder = export(results, output, columns=columns, cells=cells, console=console)
    console.print(f"{CSV} has no lists: they are only in the dataset", highlight=False)
    print_paths(console, {"dataset": folder, "csv": folder / CSV, "data card": folder / CARD})
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
