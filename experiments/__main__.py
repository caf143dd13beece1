"""Runs recorded studies: `python -m experiments scale rules size=smoke`; without names, all studies."""

from __future__ import annotations

import sys

from experiments.record import size_of
from experiments.run import names, run_studies


def main(arguments: list[str]) -> None:
    """Run the studies that are named.

    Raises:
        SystemExit: there is no such study or size, or a study failed.
    """
    requested = [argument for argument in arguments if "=" not in argument]
    size = size_of([argument for argument in arguments if "=" in argument])
    unknown = [name for name in requested if name not in names()]
    if unknown:
        raise SystemExit(f"error: there is no study {unknown[0]!r}; the studies are {', '.join(names())}")
    try:
        failed = run_studies(requested or names(), size)
    except KeyboardInterrupt:  # the command that ran has said what to do
        sys.exit(130)
    if failed:
        raise SystemExit(f"error: these studies failed: {', '.join(failed)}; their messages are above")


if __name__ == "__main__":
    main(sys.argv[1:])
