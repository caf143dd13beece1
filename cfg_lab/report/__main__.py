"""Write the page of a results folder: `python -m cfg_lab.report results/default`."""

from __future__ import annotations

import argparse
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence

from cfg_lab.errors import InputError, StoreError
from cfg_lab.report.document import TOKEN_BUDGET
from cfg_lab.report.write import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if a page was written, 2 if an argument or the results are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m cfg_lab.report",
        description="Write the results of a sweep as one HTML page that opens from disk.",
    )
    parser.add_argument("folder", help="results folder, such as results/default")
    parser.add_argument("--output", metavar="FILE", help="where to write it (default: FOLDER/report.html)")
    parser.add_argument(
        "--tokens",
        type=_megabytes,
        default=TOKEN_BUDGET / 1e6,
        metavar="MB",
        help="largest size of the token views in megabytes (default: %(default)g)",
    )
    options = parser.parse_args(arguments)
    try:
        print(report(options.folder, options.output, tokens=int(options.tokens * 1e6)))
    except (InputError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _megabytes(text: str) -> float:
    """Read the value of --tokens. argparse prints the message of the error."""
    size = float(text)
    if not 0 <= size <= 1000:
        raise ArgumentTypeError(f"must be a number of megabytes from 0 to 1000, got {text}")
    return size


if __name__ == "__main__":
    sys.exit(main())
