"""The page of a results folder: `python -m cfg_lab.report results/default` writes report.html there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cfg_lab.errors import InputError, StoreError
from cfg_lab.report.document import TOKEN_BUDGET
from cfg_lab.report.write import report


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
