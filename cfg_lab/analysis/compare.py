"""Tables of metrics: the means of each cell, and the differences between each cell and its baseline.

A cell is one combination of settings, with the texts that were written with these settings. A baseline is the
cell that another cell is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cfg_lab.analysis.frame import (
    SCALE,
    AlignedTexts,
    checked_metrics,
    settings_by_cell,
    unguided_cells,
    value_label,
    varying,
)
from cfg_lab.analysis.stats import Estimate, holm, mean_intervals, paired_differences
from cfg_lab.errors import InputError
from cfg_lab.metrics.known_columns import bounds

SettingsByCell = Mapping[str, Mapping[str, Any]]
"""Settings of each cell, by the cell's id."""


def summary(
    results: pd.DataFrame, metrics: Sequence[str] | None = None, settings: Sequence[str] | None = None
) -> pd.DataFrame:
    """Mean, 95 % confidence interval and number of scored texts (n) of every metric in every cell.

    Args:
        results: from `cfg_lab.load_results`.
        metrics: names of metrics; all by default.
        settings: names of the settings to show; by default those that vary between cells.

    Returns:
        One row per cell, in the order of the results: `cell`, the settings, `texts` (number of texts), and
        four columns per metric m: m (the mean), m_low, m_high, m_n. A number that cannot be known is NaN.
        Intervals count prompts with the same context as one prompt (see `frame.distinct_prompts`).

        Intervals are cut off at the least and greatest value that the metric can have (see `bounds`). The
        true mean is never outside these bounds, so coverage does not change.

    Raises:
        InputError: the results have no such metric.
    """
    names = varying(results) if settings is None else list(settings)
    texts = AlignedTexts.from_results(results)
    columns: dict[str, Any] = {"texts": texts.texts_per_cell}
    for metric in checked_metrics(results, metrics):
        estimates = mean_intervals(*texts.sums_by_prompt(texts.table(results[metric])))
        intervals = [_within_range(estimate, *bounds(metric)) for estimate in estimates]
        columns[metric] = [estimate.mean for estimate in estimates]
        columns[f"{metric}_low"] = [low for low, _ in intervals]
        columns[f"{metric}_high"] = [high for _, high in intervals]
        columns[f"{metric}_n"] = [estimate.n for estimate in estimates]
    cells = results.drop_duplicates("cell")[["cell", *names]].reset_index(drop=True)
    return pd.concat([cells, pd.DataFrame(columns)], axis=1)


def _within_range(estimate: Estimate, least: float, greatest: float) -> tuple[float, float]:
    """Limit a confidence interval to the range [least, greatest], and return both ends of the interval.

    An end below `least` becomes `least`, and an end above `greatest` becomes `greatest`. These two numbers
    are the smallest and the largest possible mean of the metric.
    """
    if not least <= estimate.mean <= greatest:  # NaN, or a user's own metric that has the name of one of ours
        return estimate.low, estimate.high
    # np.maximum and np.minimum keep NaN.
    return float(np.maximum(estimate.low, least)), float(np.minimum(estimate.high, greatest))


def comparisons(
    results: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    baseline: str | Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Paired differences between each cell and its baseline, on the same prompts, samples and sampling noise.

    Args:
        results: from `cfg_lab.load_results`.
        metrics: names of metrics; all by default.
        baseline: a cell's id, or settings that identify one cell, such as {"guidance.scale": 1, "negatives":
            "empty"}. All other cells are compared with this cell. By default each guided cell is compared
            with an unguided cell (see `unguided_cells`) that has the same settings apart from guidance and
            negatives. If there are several such cells, the one that has most settings in common with the
            guided cell is taken. The choice does not change the differences, because all such cells have
            the same texts.

    Returns:
        One row per cell and metric, without the cells that are their own baseline: `cell`, the settings that
        vary, `metric`, `baseline` (a cell's id, None if the cell has no baseline), `difference` (cell minus
        baseline), `low` and `high` (95 % interval), `n` (number of pairs), `p`, `p_holm` (corrected for all p
        values of the table), `effect` and `needed` as in `cfg_lab.analysis.stats.Difference`. A number that
        cannot be known is NaN. `needed` is the number of prompts for a study that makes only this
        comparison. A study that makes all comparisons of the table, corrected by Holm's method, needs more
        prompts. All numbers but `n` count prompts with the same context as one prompt.

    Raises:
        InputError: no cell is unguided, `baseline` describes no cell or several, or the results have no such
            metric.
    """
    settings = settings_by_cell(results)
    names = checked_metrics(results, metrics)
    if baseline is None:
        baselines = _unguided_baselines(settings, unguided_cells(results))
    else:
        baselines = dict.fromkeys(settings, _cell_with(settings, baseline))
    compared = {cell: reference for cell, reference in baselines.items() if cell != reference}
    texts = AlignedTexts.from_results(results)
    column: dict[str | None, int] = {cell: number for number, cell in enumerate(texts.cells)}
    column[None] = len(column)  # a column of NaN, for cells without a baseline
    left = [column[cell] for cell in compared]
    right = [column[reference] for reference in compared.values()]
    rows: list[dict[str, Any]] = []
    for metric in names:
        values = np.column_stack([texts.table(results[metric]), np.full(texts.row_count, np.nan)])
        differences = paired_differences(*texts.sums_by_prompt(values[:, left] - values[:, right]))
        for difference, (cell, reference) in zip(differences, compared.items(), strict=True):
            rows.append({"cell": cell, "metric": metric, "baseline": reference, **vars(difference)})
    frame = pd.DataFrame(
        rows, columns=["cell", "metric", "baseline", "mean", "low", "high", "n", "p", "effect", "needed"]
    ).rename(columns={"mean": "difference"})
    cells = results.drop_duplicates("cell")[["cell", *varying(results)]]
    # The merge puts all metrics of a cell next to each other.
    long = cells.merge(frame, on="cell", how="inner", sort=False).reset_index(drop=True)
    long.insert(list(long.columns).index("p") + 1, "p_holm", holm(long["p"].tolist()))
    return long


def _unguided_baselines(settings: SettingsByCell, unguided: set[str]) -> dict[str, str | None]:
    """The baseline of each cell: id of the cell -> id of its baseline.

    An unguided cell is its own baseline. An unguided cell fits a guided cell if both have the same settings
    apart from guidance and negatives. The baseline of a guided cell is the fitting cell that has most
    settings in common with it, or None if no cell fits.
    """
    if not unguided:
        raise InputError(
            f"no cell is unguided, so there is no baseline to compare with; add {SCALE}=1 to the sweep, "
            "or name a baseline"
        )
    candidates: dict[tuple[Any, ...], list[str]] = {}
    for cell, values in settings.items():
        if cell in unguided:
            candidates.setdefault(_without_guidance(values), []).append(cell)

    def common_settings(cell: str, candidate: str) -> int:
        return sum(
            settings[cell][name] == value for name, value in settings[candidate].items() if name != SCALE
        )

    baselines: dict[str, str | None] = {}
    for cell, values in settings.items():
        nearest = max(
            candidates.get(_without_guidance(values), []),
            key=lambda candidate: common_settings(cell, candidate),
            default=None,
        )
        baselines[cell] = cell if cell in unguided else nearest
    return baselines


def _without_guidance(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of a cell's settings, without the settings of the config groups "guidance" and "negatives".

    The settings that are left are the only ones that unguided texts depend on.
    """
    return tuple(
        value for name, value in values.items() if name.partition(".")[0] not in {"guidance", "negatives"}
    )


def _cell_with(settings: SettingsByCell, baseline: str | Mapping[str, Any]) -> str:
    """Return the id of the cell that `baseline` describes.

    `baseline` is the id of a cell, or a mapping of settings that exactly one cell has.
    """
    if isinstance(baseline, str):
        if baseline not in settings:
            raise InputError(f"baseline is {baseline!r}, but the cells are {', '.join(settings)}")
        return baseline
    required = dict(baseline)
    names = list(dict.fromkeys(name for values in settings.values() for name in values))
    for key in required:
        if key not in names:
            raise InputError(f"baseline names {key!r}, but the settings are {', '.join(names)}")
    fitting = [
        cell
        for cell, values in settings.items()
        # Compared as a command line writes them: 1, 1.0 and "1" are the same.
        if all(value_label(values[key]) == value_label(value) for key, value in required.items())
    ]
    if not fitting:
        available = {
            key: " or ".join(dict.fromkeys(value_label(values[key]) for values in settings.values()))
            for key in required
        }
        raise InputError(f"baseline {required} fits no cell; the cells have {available}")
    if len(fitting) > 1:
        differ = [name for name in names if len({settings[cell][name] for cell in fitting}) > 1]
        raise InputError(
            f"baseline {required} fits {len(fitting)} cells, which differ in {', '.join(differ)}; "
            "name that too"
        )
    return fitting[0]
