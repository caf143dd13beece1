"""Score a finished sweep with more metrics.

For example: `python -m cfg_lab.score results/default 'metrics=[readability]'`.

No text is decoded. The model that generated the texts is not loaded. Existing scores are kept.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, cast

from cfg_lab.options import option_names
from cfg_lab.study.config import build, compose_group
from cfg_lab.study.console import (
    errors_in_a_sentence,
    fitting_table,
    open_console,
    print_paths,
    show_warnings,
)

_USAGE = """Scores a finished sweep with more metrics. Decodes nothing.

  python -m cfg_lab.score results/default 'metrics=[readability,leakage]'
  python -m cfg_lab.score results/default 'metrics=[evaluator]' metrics.evaluator.model=gpt2

Metrics and their arguments are written as for cfg_lab.sweep. The metrics are"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and score the texts of a results folder."""
    parser = ArgumentParser(
        "python -m cfg_lab.score",
        description=f"{_USAGE}\n{', '.join(option_names('metrics'))}.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", help="results folder of a sweep")
    parser.add_argument(
        "overrides", nargs="*", metavar="metrics=[…]", help="metrics; by default those of a sweep"
    )
    parsed = parser.parse_args(arguments)
    with errors_in_a_sentence():
        run(parsed.results, parsed.overrides)


def run(results: str, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Score the decoded texts of a results folder, and show its summary.

    Args:
        results: the results folder.
        overrides: metrics and their arguments in Hydra's grammar, such as ["metrics=[readability]"].

    Returns:
        The rows of the summary, one per cell.

    Raises:
        InputError: an override is wrong, or the folder has no results or no decoded text.
    """
    from cfg_lab.study.labels import labels_of_summary
    from cfg_lab.study.scoring import main_columns, score_missing, summarise
    from cfg_lab.study.store import Store

    console = open_console()
    show_warnings(console)
    store = Store(results)
    cells, decoded = store.cells_and_decoded()
    metrics = list(build(compose_group("metrics", overrides, "score"), "metrics").values())
    if undecoded := int((~decoded).sum()):
        console.print(f"{undecoded} of {len(cells)} texts are not decoded yet and left out", style="yellow")
    if not score_missing(store, metrics, console):
        console.print("every text has these scores already", highlight=False)
    summary = summarise(store)
    rows = cast("list[dict[str, Any]]", summary.to_dict("records"))
    labels = labels_of_summary(summary, store.read_text("config.yaml"))
    console.print(fitting_table(labels, rows, main_columns(metrics), console))
    print_paths(console, {"results": store.root, "summary": store.root / "summary.parquet"})
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
