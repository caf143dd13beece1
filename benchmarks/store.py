"""Seconds and memory of reading, analysing and scoring a results folder with many texts.

    python -m benchmarks.store [--texts 20000] [--json benchmarks/store.json]

The texts are synthetic: 64 tokens, the five likeliest tokens of each step kept, scores in six columns (see
`benchmarks.store_data`). Each step runs in a process of its own, because a process reports only its largest
memory. Seconds do not count the start of the process and imports. CPU seconds count all threads; unlike
seconds they change little when other programs use the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

import cfg_lab
from benchmarks.machine import processor
from benchmarks.store_data import METRICS, Size, write_folder
from cfg_lab.metrics import Readability
from cfg_lab.report.axes import cells_of
from cfg_lab.report.change import compare_with_baselines
from cfg_lab.report.roles import roles_of
from cfg_lab.study.merge import merge_small_files
from cfg_lab.study.scoring import score_rows, summarise
from cfg_lab.study.store import Store

TEXTS_OF_A_WORKER = 500
MEASURES = ("seconds", "cpu_seconds", "peak_gb")


def _load_columns(root: Path) -> None:
    cfg_lab.load_results(root, ["text", *METRICS[:2]])


def _load_a_cell(root: Path) -> None:
    cell = min((root / "cells").iterdir()).stem
    cfg_lab.load_results(root, cells=[cell])


def _load_everything(root: Path) -> None:
    cfg_lab.load_results(root)


def _find_missing(root: Path) -> None:
    store = Store(root)
    rows = store.cell_table(columns=["completion", "score_id"]).rows
    assert not set(rows["completion"].to_numpy()) - store.completion_ids()
    scored = store.scored_texts()
    assert len(scored) == len(METRICS)
    for texts in scored.values():
        assert pc.all(pc.is_in(rows["score_id"], value_set=texts.cast(pa.large_string()))).as_py()


def _summarise_and_compare(root: Path) -> None:
    summary = summarise(Store(root))
    results = cfg_lab.load_results(root, METRICS)
    changes = compare_with_baselines(results, summary, cells_of(results), roles_of(list(METRICS)))
    assert changes.primary


def _score_a_share(root: Path) -> None:
    rows = Store(root).cells().iloc[:TEXTS_OF_A_WORKER]
    with Path(os.devnull).open("w") as nowhere:
        scored = score_rows(Store(root), [Readability()], rows, Console(file=nowhere))
    assert scored == len(rows)


def _merge(root: Path) -> None:
    merge_small_files(Store(root))


STEPS: dict[str, Callable[[Path], None]] = {
    "load_results of text, two metrics and settings": _load_columns,
    "load_results of all columns of a cell": _load_a_cell,
    "find missing texts and scores": _find_missing,
    "summarise, and compare all cells with baselines": _summarise_and_compare,
    f"score {TEXTS_OF_A_WORKER} texts with a new metric": _score_a_share,
    "load_results of all columns": _load_everything,
    "merge small files": _merge,
    "load_results of text, two metrics and settings, merged": _load_columns,
}
"""What is measured, in this order."""

MOST_TEXTS_OF_ALL_COLUMNS = 10_000
"""All columns of more texts are not loaded: 20,000 texts need more than 6 GB."""


def measure(step: str, root: Path) -> dict[str, float]:
    """Run one step in this process. Returns seconds, CPU seconds and the largest memory in GB."""
    begin, cpu_begin = time.perf_counter(), time.process_time()
    STEPS[step](root)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu_begin,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def measure_apart(step: str, root: Path) -> dict[str, float]:
    """Run one step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.store", "--step", step, "--folder", str(root)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _machine() -> dict[str, Any]:
    versions = {"pandas": pd.__version__, "pyarrow": pa.__version__}
    return {"processor": processor(), "cores": os.cpu_count(), **versions}


def main() -> None:
    """Write the folder, measure each step, print a table, and write the numbers as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=20_000, help="number of texts, a multiple of the cells")
    parser.add_argument("--files", type=int, help="number of files; by default one for 500 texts")
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument(
        "--folder", type=Path, help="an existing folder; by default a temporary one is written"
    )
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(options.step, options.folder)))
        return
    size = Size(texts=options.texts, files=options.files or max(options.texts // 500, 1), cells=options.cells)
    numbers: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary) / "results"
        if options.folder is None:
            begin = time.perf_counter()
            write_folder(root, size, os.cpu_count() or 1)
            numbers["write the folder"] = {"seconds": time.perf_counter() - begin}
        files = len(list((root / "completions").iterdir())) + len(list((root / "scores").iterdir()))
        for step in STEPS:
            if step != "load_results of all columns" or size.texts <= MOST_TEXTS_OF_ALL_COLUMNS:
                numbers[step] = measure_apart(step, root)
                print(step, numbers[step], file=sys.stderr, flush=True)
    machine = _machine()
    title = f"{size.texts:,} texts in {size.cells} cells and {files:,} files; {machine['processor']}"
    table = Table("", "seconds", "CPU seconds", "peak GB", title=title)
    for step, values in numbers.items():
        table.add_row(step, *(f"{values[name]:.1f}" if name in values else "" for name in MEASURES))
    Console(width=110).print(table)
    if options.json:
        content = {
            "machine": machine,
            "texts": size.texts,
            "cells": size.cells,
            "files": files,
            "steps": numbers,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
