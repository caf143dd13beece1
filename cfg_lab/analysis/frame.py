"""Reads a results frame: its settings, its metrics, its unguided cells, and its texts aligned between cells.

A results frame has one row per text, as `cfg_lab.load_results` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from cfg_lab.analysis.stats.clustered_means import Floats, Ints
from cfg_lab.errors import InputError

SETTING_GROUPS = ("model", "prompts", "negatives", "guidance", "sampling")
"""Config groups that define a cell. Each is a setting, and so is every value in it: "guidance.scale"."""

TASK = "task"
"""The setting that names the benchmark task of a cell. Cells of different tasks have no common prompts."""

PLAIN_SETTINGS = (
    *(*SETTING_GROUPS, "seed", "samples", "max_new_tokens", "stop", "top"),
    *(TASK, "limit", "num_fewshot"),  # of a benchmark
)
"""Settings whose names have no dot. Every column whose name has a dot is a setting too."""

SCALE = "guidance.scale"
"""The setting that holds the strength of guidance. Figures order cells by it."""


def settings_of(results: pd.DataFrame) -> list[str]:
    """Names of all settings in a results frame, in the order of its columns."""
    return [name for name in map(str, results.columns) if name in PLAIN_SETTINGS or "." in name]


def metrics_of(results: pd.DataFrame) -> list[str]:
    """Names of the metrics in a results frame.

    Every column of numbers is a metric, except the settings and the sample number.
    """
    not_metrics = {*settings_of(results), "sample"}
    return [
        name
        for name in map(str, results.columns)
        if name not in not_metrics and pd.api.types.is_numeric_dtype(results[name])
    ]


def checked_metrics(results: pd.DataFrame, metrics: Sequence[str] | None) -> list[str]:
    """Return the names in `metrics`, or the names of all metrics of the results if `metrics` is None.

    Raises:
        InputError: the results lack one of the metrics.
    """
    available = metrics_of(results)
    for name in metrics or ():
        if name not in available:
            raise InputError(
                f"there is no metric {name!r} in these results; they have {', '.join(available) or 'none'}"
            )
    return available if metrics is None else list(metrics)


def unguided_cells(results: pd.DataFrame) -> set[str]:
    """Ids of the unguided cells: those in which no text was decoded with a negative.

    A negative is a context that guidance steers away from. Why no negative ran does not matter: the scale can
    be 1, the schedule can be 0 at every step, or the cell has no negatives. The column `negative_ids` of a
    text lists the negatives that ran at one step or more.

    Raises:
        InputError: the results have no column `negative_ids`, or the column holds values that are not lists.
    """
    if "negative_ids" not in results.columns:
        raise InputError(
            "these results have no column 'negative_ids', so it is not known which cells are unguided; "
            "use the results that cfg_lab.load_results gives"
        )
    for value in results["negative_ids"]:
        if not pd.api.types.is_list_like(value):
            raise InputError(
                f"the column 'negative_ids' must hold lists, got {value!r}; "
                "use the results that cfg_lab.load_results gives"
            )
    guided_texts = results["negative_ids"].map(len) > 0
    guided_cells = results.loc[guided_texts, "cell"]
    return {str(cell) for cell in results["cell"].unique()} - {str(cell) for cell in guided_cells.unique()}


def varying(results: pd.DataFrame) -> list[str]:
    """Names of the settings that differ between cells, in the order of columns.

    The setting "negatives.template", for example, belongs to the config group "negatives". The value of the
    setting "negatives" is the name of the group's chosen option, which is a YAML file. If this name differs
    between cells and determines the value of a setting of the group, the setting is left out. For example, if
    each option of "negatives" has one template, "negatives.template" is left out.
    """
    cells = settings_by_cell(results).values()
    differ = [name for name in settings_of(results) if len({cell[name] for cell in cells}) > 1]

    def follows_from_its_group(name: str) -> bool:
        group = name.partition(".")[0]
        if group == name or group not in differ:
            return False
        return len({(cell[group], cell[name]) for cell in cells}) == len({cell[group] for cell in cells})

    return [name for name in differ if not follows_from_its_group(name)]


def settings_by_cell(results: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """All settings of each cell, as cell id -> setting -> value. Cells are in the order of the results.

    The value is None if a cell does not have the setting.
    """
    names = settings_of(results)
    first_rows = results.drop_duplicates("cell")
    columns = [[_comparable(value) for value in first_rows[name].tolist()] for name in names]
    rows = zip(*columns, strict=True) if names else [()] * len(first_rows)
    return {
        str(cell): dict(zip(names, row, strict=True))
        for cell, row in zip(first_rows["cell"], rows, strict=True)
    }


def setting_label(name: str) -> str:
    """A setting's name without the name of its config group: "scale" for "guidance.scale"."""
    group, _, last = name.rpartition(".")
    return f"{group} {last}" if last == "name" else last.replace("_", " ")


def value_label(value: Any) -> str:
    """A setting's value as a user writes it on the command line: "1" for 1.0."""
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def distinct_prompts(results: pd.DataFrame) -> Ints:
    """For each text, the number of its distinct prompt, [texts]. This is the independent unit of statistics.

    Prompts with the same positive context count as one distinct prompt, whatever their ids and negatives are.
    Their texts have the same sampling noise, and are equal where no negative runs. If they counted as
    independent, a prompt that is given several times would make p values too small.

    The column `positive_ids` holds the token ids of the context. In a frame without this column, the text of
    the prompt stands for them. Distinct prompts are numbered in the order of their ids, so that the order of
    the rows changes nothing.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    prompt = _row_numbers(results["prompt_id"], results["prompt"])
    if "positive_ids" in results and results["positive_ids"].notna().all():
        # Different contexts of models with different tokenizers can have the same ids.
        models = results.get("model_name", pd.Series("", results.index))
        # In a frame that was read from a CSV file, the ids are a text.
        ids_as_values = [
            ids if isinstance(ids, str) else np.asarray(ids, np.int32).tobytes()
            for ids in results["positive_ids"].tolist()
        ]
        context = _row_numbers(models, pd.Series(ids_as_values, dtype=object))
    else:
        context = _row_numbers(results["prompt"])
    # A prompt has one context per model. So prompts and contexts are the nodes of a graph, and each text
    # joins its prompt with its context. What is connected is one distinct prompt.
    prompts = int(prompt.max(initial=-1)) + 1
    nodes = prompts + int(context.max(initial=-1)) + 1
    edges = (np.ones(len(prompt)), (prompt, prompts + context))
    _, component = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)
    return component[prompt].astype(np.int64)


def _row_numbers(*columns: Any) -> Ints:
    """Number the different rows of some columns in sorted order. Returns the number of each row, [rows]."""
    numbers = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        codes, values = cast("Any", pd).factorize(column, sort=True, use_na_sentinel=False)
        numbers = np.unique(numbers * len(values) + codes, return_inverse=True)[1].astype(np.int64)
    return numbers


@dataclass(frozen=True, kw_only=True)
class AlignedTexts:
    """Texts of all cells as a table: one column per cell, one row per prompt and sample.

    Texts in the same row have the same prompt, sample number and sampling noise, so differences between
    columns are paired differences.

    Attributes:
        cells: ids of the cells, in the order of the results frame.
        texts_per_cell: number of texts of each cell, [cells].
        column_of_text: for each row of the results frame, the text's column in the table, [texts].
        row_of_text: for each row of the results frame, the text's row in the table, [texts].
        prompt_starts: first row of each distinct prompt in the table, [prompts]. The rows of a distinct
            prompt (see `distinct_prompts`) are adjacent.
        row_count: number of rows of the table.
    """

    cells: list[str]
    texts_per_cell: Ints
    column_of_text: Ints
    row_of_text: Ints
    prompt_starts: Ints
    row_count: int

    @classmethod
    def from_results(cls, results: pd.DataFrame) -> AlignedTexts:
        """Make the table of the texts of a results frame, which has one row per text."""
        column, cells = pd.factorize(results["cell"])
        prompts = distinct_prompts(results)
        # Two prompt sets can use the same ids, so the prompt's text is part of the key. Rows are sorted by
        # key, so that the order of rows in files changes nothing.
        row = _row_numbers(prompts, results["prompt_id"], results["prompt"], results["sample"])
        row_count = int(row.max(initial=-1)) + 1
        prompt_of_row = np.zeros(row_count, np.int64)
        prompt_of_row[row] = prompts
        return cls(
            cells=[str(cell) for cell in cells],
            texts_per_cell=np.bincount(column, minlength=len(cells)).astype(np.int64),
            column_of_text=column.astype(np.int64),
            row_of_text=row,
            prompt_starts=np.flatnonzero(np.diff(prompt_of_row, prepend=-1)).astype(np.int64),
            row_count=row_count,
        )

    def table(self, metric: pd.Series[Any]) -> Floats:
        """Values of a metric as a table [rows, cells]; NaN where a text or its score is missing."""
        values = np.full((self.row_count, len(self.cells)), np.nan)
        values[self.row_of_text, self.column_of_text] = metric.to_numpy(np.float64)
        return values

    def sums_by_prompt(self, values: Floats) -> tuple[Floats, Floats]:
        """For each distinct prompt the sum of its values and their number, both [prompts, columns].

        NaN is left out.

        Args:
            values: [rows, columns].
        """
        scored = ~np.isnan(values)
        sums = np.add.reduceat(np.where(scored, values, 0.0), self.prompt_starts, axis=0)
        return sums, np.add.reduceat(scored.astype(np.float64), self.prompt_starts, axis=0)


def _comparable(value: Any) -> Any:
    """Convert a value to one that can be compared and hashed: None for NaN, text for lists and dicts."""
    if isinstance(value, (list, tuple, dict, np.ndarray)):
        return repr(cast("object", value))
    if value is None or value is pd.NA or value != value:
        return None
    return cast("Any", value).item() if isinstance(value, np.generic) else value
