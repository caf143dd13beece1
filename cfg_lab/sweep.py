"""The main command, `python -m cfg_lab.sweep`: a grid of Hydra overrides, decoded as one batch.

Hydra's sweeper expands `a=1,2 b=x,y`. The launcher in hydra_plugins hands all points of the grid to
`run_or_exit` at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import hydra
from omegaconf import DictConfig

from cfg_lab.errors import TrackingError
from cfg_lab.options import CONFIG
from cfg_lab.study.console import (
    errors_in_a_sentence,
    fitting_table,
    open_console,
    print_paths,
    show_warnings,
)


@hydra.main(config_path=str(CONFIG), config_name="sweep", version_base="1.3")
def main(config: DictConfig) -> None:
    """One cell alone: what launchers other than ours call, such as hydra/launcher=basic."""
    run_or_exit([config], [[]])


def run_or_exit(configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Run the cells; errors a user can mend are said in a sentence."""
    with errors_in_a_sentence():
        return run(configs, overrides)


def run(configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Decode, score and keep every cell, show a table, and return its rows.

    Args:
        configs: of each cell, composed.
        overrides: of each cell, "key=value"; those that differ between cells label them.
    """
    from cfg_lab.study.build import build_study, labels_of
    from cfg_lab.study.config import build
    from cfg_lab.study.run import run_study
    from cfg_lab.study.scoring import first_columns
    from cfg_lab.track.mirror import mirror

    console = open_console()
    show_warnings(console)
    study = build_study(configs, labels_of(overrides))
    tracker = build(configs[0], "tracking")
    console.print(f"[bold]{study.name}[/]: {len(study.cells)} cells", highlight=False)
    summary = run_study(study, console)
    rows = cast("list[dict[str, Any]]", summary.to_dict("records"))
    labels = [cell.label for cell in study.cells]
    console.print(fitting_table(labels, rows, first_columns(study.metrics), console))
    root = study.store.root
    page = None
    if configs[0].report:
        from cfg_lab.report.write import report

        page = report(root)
    try:
        mirror(study.store, tracker, console, page)
    except TrackingError as error:
        again = (
            "the results are on disk all the same; try again with: "
            f"python -m cfg_lab.track {root} {tracker.retry_hint}"
        )
        console.print(f"{error}; {again}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    paths = {"results": root, "summary": root / "summary.parquet"}
    runs = tracker.local_path(root)
    print_paths(console, paths | ({tracker.name: runs} if runs else {}) | ({"page": page} if page else {}))
    return rows


if __name__ == "__main__":
    cast("Callable[[], None]", main)()
