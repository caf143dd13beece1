"""Score a finished sweep again: `python -m cfg_lab.score results/default metrics=[readability,leakage]`.

Nothing is decoded and no generator is loaded; what a metric has scored already is not scored again. The
metrics of earlier runs stay in the results.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd
import yaml

from cfg_lab.options import option_names
from cfg_lab.study.config import build, compose_group
from cfg_lab.study.console import (
    errors_in_a_sentence,
    fitting_table,
    open_console,
    print_paths,
    show_warnings,
)

_USAGE = """Adds metrics to a finished sweep, without decoding anything.

  python -m cfg_lab.score results/default metrics=[readability,leakage]
  python -m cfg_lab.score results/default metrics=[evaluator] metrics.evaluator.model=gpt2

Metrics and their arguments are written as for cfg_lab.sweep; they are"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(
        "python -m cfg_lab.score",
        description=f"{_USAGE}\n{', '.join(option_names('metrics'))}.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", help="folder of a sweep")
    parser.add_argument(
        "overrides", nargs="*", metavar="metrics=[…]", help="what to score; without, as in a sweep"
    )
    given = parser.parse_args(arguments)
    with errors_in_a_sentence():
        run(given.results, given.overrides)


def run(results: str, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Score what is missing, rewrite the summary, show a table, and return its rows, one a cell.

    Args:
        results: folder of a sweep.
        overrides: of metrics, in Hydra's grammar.

    Raises:
        InputError: an override is wrong, or the folder holds no results or nothing decoded.
    """
    from cfg_lab.study.scoring import first_columns, prepare, score_missing, summarise
    from cfg_lab.study.store import Store

    console = open_console()
    show_warnings(console)
    store = Store(results)
    cells, decoded = store.begun()
    metrics = list(build(compose_group("metrics", overrides, "score"), "metrics").values())
    prepare(metrics)
    if left := int((~decoded).sum()):
        console.print(f"{left} of {len(cells)} texts are not decoded yet and left out", style="yellow")
    if not score_missing(store, metrics, console):
        console.print("every text has these scores already", highlight=False)
    summary = summarise(store)
    rows = cast("list[dict[str, Any]]", summary.to_dict("records"))
    labels = _labels(summary, store.read_text("config.yaml"))
    console.print(fitting_table(labels, rows, first_columns(metrics), console))
    print_paths(console, {"results": store.root, "summary": store.root / "summary.parquet"})
    return rows


def _labels(summary: pd.DataFrame, record: str | None) -> list[Mapping[str, str]]:
    """Of each cell, the settings that the sweep last varied here; those that differ where it varied none."""
    labels: list[dict[str, Any]] = yaml.safe_load(record)["cells"] if record else []
    keys = [key for key in dict.fromkeys(key for label in labels for key in label) if key in summary]
    if len(summary[keys].astype(str).drop_duplicates()) < len(summary):
        settings = list(summary.columns[: summary.columns.get_loc("texts")])
        keys = [key for key in settings if key != "cell" and summary[key].astype(str).nunique() > 1]
    return [{key: str(row[key]) for key in keys} for _, row in summary.iterrows()]


if __name__ == "__main__":
    main(sys.argv[1:])
