"""Show a tracker a finished sweep: `python -m cfg_lab.track results/default tracking.mode=online`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence

from cfg_lab.report.write import report
from cfg_lab.study.config import build, compose_group
from cfg_lab.study.console import errors_in_a_sentence, open_console, print_paths, show_warnings
from cfg_lab.study.formats import count

_USAGE = """Writes the page of a finished sweep and shows W&B what it has not seen, without decoding anything.

  python -m cfg_lab.track results/default tracking.mode=online
  python -m cfg_lab.track results/default tracking.project=paper tracking.entity=us

Runs keep their ids: a run that was logged before is updated."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(
        "python -m cfg_lab.track", description=_USAGE, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="folder of a sweep")
    parser.add_argument(
        "overrides", nargs="*", metavar="tracking.…", help="where to, as for cfg_lab.sweep (conf/tracking)"
    )
    parser.add_argument("--all", action="store_true", help="also what was shown there before")
    given = parser.parse_args(arguments)
    with errors_in_a_sentence():
        run(given.results, given.overrides, everything=given.all)


def run(results: str, overrides: Sequence[str] = (), *, everything: bool = False) -> int:
    """Show a tracker what it has not seen of a sweep, and return how many runs that made.

    Args:
        results: folder of a sweep.
        overrides: of tracking, in Hydra's grammar.
        everything: also what it has seen.

    Raises:
        InputError: an override is wrong, or the folder holds no results.
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
    print_paths(console, {"page": page, "W&B": store.root / "wandb"})
    return logged


if __name__ == "__main__":
    main(sys.argv[1:])
