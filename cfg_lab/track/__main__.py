"""Logs a finished sweep to a tracker: `python -m cfg_lab.track results/default tracking.mode=online`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence

from cfg_lab.report.write import report
from cfg_lab.study.config import build, compose_group
from cfg_lab.study.console import errors_in_a_sentence, open_console, print_paths, show_warnings
from cfg_lab.study.formats import count

_USAGE = """Logs a finished sweep to a tracker, and writes its page. Nothing is decoded.

  python -m cfg_lab.track results/default tracking.mode=online
  python -m cfg_lab.track results/default tracking.project=paper tracking.entity=us
  python -m cfg_lab.track results/default tracking=tensorboard

Only cells that have changed since they were last logged are logged. They replace their earlier runs."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and call `run`."""
    parser = ArgumentParser(
        "python -m cfg_lab.track", description=_USAGE, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="folder of a sweep")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="tracking.…",
        help="the tracker and its settings, as for cfg_lab.sweep",
    )
    parser.add_argument("--all", action="store_true", help="also log cells that have not changed")
    given = parser.parse_args(arguments)
    with errors_in_a_sentence():
        run(given.results, given.overrides, everything=given.all)


def run(results: str, overrides: Sequence[str] = (), *, everything: bool = False) -> int:
    """Log the cells of a results folder that have changed, and write the page of the folder.

    Args:
        results: folder of a sweep.
        overrides: settings of tracking in Hydra's grammar: ["tracking.mode=online"].
        everything: whether to log cells that have not changed too.

    Returns:
        Number of runs that were logged.

    Raises:
        InputError: an override is wrong, or the folder holds no results.
        TrackingError: the tracker failed.
    """
    from cfg_lab.study.store import Store
    from cfg_lab.track.mirror import mirror

    console = open_console()
    show_warnings(console)
    tracker = build(compose_group("tracking", overrides, "track"), "tracking")
    page = report(results)
    store = Store(results)
    logged = mirror(store, tracker, console, page, everything=everything)
    console.print(f"{count(logged, 'run')} logged to {tracker.destination or 'nowhere'}", highlight=False)
    runs = tracker.local_path(store.root)
    print_paths(console, {"page": page, **({tracker.name: runs} if runs else {})})
    return logged


if __name__ == "__main__":
    main(sys.argv[1:])
