"""Write the export of a results folder: a dataset, a CSV file and a data card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import yaml
from datasets import (
    Dataset,
    Features,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from rich.console import Console

from cfg_lab.export.card import CardFacts, data_card
from cfg_lab.export.columns import setting_array
from cfg_lab.export.folder import CARD, CSV, complete_folder
from cfg_lab.export.rows import ExportRows, export_rows
from cfg_lab.study.console import open_console
from cfg_lab.study.declared_columns import declare_stored_columns
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.store import Store

_FILE_BYTES = 500_000_000
"""Size of one Arrow file, as the `datasets` library chooses it."""

_ROWS_PER_BATCH = 1_000
"""Rows of one record batch, as the `datasets` library chooses it: few enough to find one row quickly."""


def export(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    columns: Sequence[str] | None = None,
    cells: Sequence[str] | None = None,
    console: Console | None = None,
) -> Path:
    """Write the texts of a results folder as a dataset of the `datasets` library, and as CSV.

    `datasets.load_from_disk` reads the folder. Its rows and values are those of `cfg_lab.load_results`, in
    the same order. README.md is its data card. texts.csv has all columns that are not lists.

    Args:
        folder: the results folder.
        output: the folder to write; by default `export` in the results folder. An earlier export there is
            replaced.
        columns: names of the columns to write; ["all"] writes all; None all but those with one entry per
            token (pieces, trace_…, alternatives_…).
        cells: ids of the cells to export; None takes all.
        console: where to show progress; None is stdout.

    Returns:
        The folder.

    Raises:
        InputError: the folder has no results, there is no such cell or column, or `output` cannot be
            written or holds something else.
        StoreError: a results file is damaged, or the disk is full.
    """
    store = Store(folder)
    console = console or open_console()
    target = Path(folder, "export") if output is None else Path(output)
    declare_stored_columns(store)
    with complete_folder(target) as draft:
        rows = export_rows(store, columns, cells)
        scratch = draft / "scratch"
        scratch.mkdir()
        written = _write_tables(rows, draft, scratch, console)
        scratch.rmdir()
        _describe_dataset(draft, rows.schema, written)
        (draft / CARD).write_text(data_card(_facts(rows)), encoding="utf-8")
    return target


def _write_tables(rows: ExportRows, draft: Path, scratch: Path, console: Console) -> list[str]:
    """Write the Arrow files and the CSV file, and return the names of the Arrow files."""
    schema = Features.from_arrow_schema(rows.schema).arrow_schema
    csv_schema = pa.schema(csv_fields(schema))
    paths: list[Path] = []
    options = csv.WriteOptions(quoting_style="needed")
    arrow = None
    windows = rows.sorted_on_disk(scratch, console)
    with (
        ProgressBar(console, "writing", len(rows), "texts") as bar,
        csv.CSVWriter(str(draft / CSV), csv_schema, write_options=options) as csv_file,
    ):
        size = 0
        try:
            for window in windows:
                for batch in rows.table(window).cast(schema).to_batches(_ROWS_PER_BATCH):
                    if arrow is None or size > _FILE_BYTES:
                        if arrow is not None:
                            arrow.close()
                        paths.append(draft / f"data-{len(paths):05}.arrow")
                        arrow, size = pa.ipc.new_stream(str(paths[-1]), schema), 0
                    arrow.write_batch(batch)
                    csv_file.write_batch(batch.select(csv_schema.names))
                    size += batch.nbytes
                    bar.advance(len(batch))
        finally:
            if arrow is not None:
                arrow.close()
    names = [f"data-{number:05}-of-{len(paths):05}.arrow" for number in range(len(paths))]
    for path, name in zip(paths, names, strict=True):
        path.rename(draft / name)
    return names


def csv_fields(schema: pa.Schema) -> list[pa.Field[Any]]:
    """The fields of a schema that a CSV file can hold: all but lists."""
    return [field for field in cast("Any", schema) if not pa.types.is_nested(field.type)]


def _describe_dataset(draft: Path, schema: pa.Schema, names: Sequence[str]) -> None:
    """Write the files that describe the dataset.

    The library writes them for a dataset without rows. The names of the Arrow files are added then. So the
    rows need not be written twice, as `Dataset.save_to_disk` would do.
    """
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        empty = draft / "scratch"
        Dataset(cast("Any", schema.empty_table())).save_to_disk(str(empty))
        state: dict[str, Any] = json.loads((empty / "state.json").read_text(encoding="utf-8"))
        state["_data_files"] = [{"filename": name} for name in names]
        (draft / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")
        (empty / "dataset_info.json").rename(draft / "dataset_info.json")
        for path in empty.iterdir():
            path.unlink()
        empty.rmdir()
    finally:
        if not silent:
            enable_progress_bars()


def _facts(rows: ExportRows) -> CardFacts:
    """What the data card says."""
    store, table = rows.store, rows.cells
    config: Any = yaml.safe_load(store.read_text("config.yaml") or "{}") or {}
    environment: dict[str, Any] = json.loads(store.read_text("environment.json") or "{}")
    models = store.completion_table(["id", "model_name", "model_fingerprint"])
    models = models.filter(pc.is_in(models["id"], value_set=rows.texts))
    pairs = models.group_by(["model_name", "model_fingerprint"], use_threads=False).aggregate([])
    prompts = store.cell_table(set(table.settings["cell"]), ["prompt_id", "prompt"]).rows
    commands = [str(cost["command"] or "") for cost in store.costs()] + [str(config.get("command") or "")]
    python = environment.get("python")
    machine = [
        f"Python {python}" if python else "",
        environment.get("platform"),
        environment.get("processor"),
    ]
    schema = rows.schema
    return CardFacts(
        name=str(cast("Any", config.get("first_cell") or {}).get("name") or store.root.resolve().name),
        commands=list(dict.fromkeys(filter(None, commands))),
        packages=environment.get("packages") or {},
        machine=", ".join(filter(None, machine)),
        schema=schema,
        csv_columns=[str(field.name) for field in csv_fields(schema)],
        left_out=rows.columns.left_out,
        settings={name: _different(setting_array(table.settings[name])) for name in rows.columns.settings},
        models=list(zip(*(pairs[name].to_pylist() for name in pairs.column_names), strict=True)),
        prompt_options=_different(setting_array(table.settings["prompts"]))
        if "prompts" in rows.columns.settings
        else [],
        rows=len(rows),
        cells=int(np.count_nonzero(table.counts)),
        prompts=len(prompts.group_by(["prompt_id", "prompt"]).aggregate([])),
        distinct_texts=len(rows.texts),
    )


def _different(values: pa.Array[Any]) -> list[str]:
    """The different values of a setting as text, in the order of the cells."""
    return ["null" if value is None else str(value) for value in cast("Any", values).unique().to_pylist()]
