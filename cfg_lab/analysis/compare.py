"""Tables: the mean of each cell, and how it differs from its baseline on the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cfg_lab.analysis.frame import SCALE, Pairs, known_metrics, settings_by_cell, varying, written
from cfg_lab.analysis.stats.estimates import Estimate, holm, mean_intervals, paired_differences
from cfg_lab.errors import InputError
from cfg_lab.metrics.known_columns import bounds

Settings = Mapping[str, Mapping[str, Any]]
"""Of each cell, by its id."""


def summary(
    results: pd.DataFrame, metrics: Sequence[str] | None = None, settings: Sequence[str] | None = None
) -> pd.DataFrame:
    """Mean, 95 % interval over prompts and n of every metric in every cell.

    Args:
        results: from `cfg_lab.load_results`.
        metrics: their names, by default all.
        settings: which to show, by default those that vary.

    Returns:
        A row a cell, in the order of results: `cell`, the settings, `texts`, and for each metric m the
        columns m, m_low, m_high, m_n. NaN where something cannot be known. Intervals end where the metric's
        range does (`bounds`): what is cut off cannot be the truth, so they cover it as often as before.

    Raises:
        InputError: there is no such metric.
    """
    names = varying(results) if settings is None else list(settings)
    pairs = Pairs.of(results)
    columns: dict[str, Any] = {"texts": pairs.texts}
    for metric in known_metrics(results, metrics):
        found = mean_intervals(*pairs.by_prompt(pairs.values(results[metric])))
        columns[metric] = [one.mean for one in found]
        ends = [_possible(one, *bounds(metric)) for one in found]
        columns[f"{metric}_low"] = [low for low, _ in ends]
        columns[f"{metric}_high"] = [high for _, high in ends]
        columns[f"{metric}_n"] = [one.n for one in found]
    cells = results.drop_duplicates("cell")[["cell", *names]].reset_index(drop=True)
    return pd.concat([cells, pd.DataFrame(columns)], axis=1)


def _possible(one: Estimate, least: float, greatest: float) -> tuple[float, float]:
    """The interval without what the metric cannot be."""
    if not least <= one.mean <= greatest:  # NaN, or somebody's own metric of the same name
        return one.low, one.high
    return float(np.maximum(one.low, least)), float(np.minimum(one.high, greatest))  # NaN stays NaN


def comparisons(
    results: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    baseline: str | Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Paired differences of every cell to its baseline: the same prompts, samples and noise.

    Args:
        results: from `cfg_lab.load_results`.
        metrics: their names, by default all.
        baseline: a cell's id, or settings that one cell alone has, {"guidance.scale": 1, "negatives":
            "empty"}: then all others are compared with it. By default each cell is compared with plain
            decoding, the cell with the same settings except guidance at guidance.scale 1. As that does not
            depend on the negatives, another negative's serves where a cell's own was not run.

    Returns:
        Long: a row for each metric of each cell that is not its own baseline: `cell`, the settings that
        vary, `metric`, `baseline` (a cell's id, None where there is none), `difference` (cell minus
        baseline), `low`, `high` (95 % interval), `n` pairs, `p`, `p_holm` (adjusted for all p of the table),
        `effect` and `needed` as in `cfg_lab.stats.Difference`. NaN where something cannot be known.
        `needed` is for one comparison alone at the 5 % level; to stand after Holm among all of a table takes
        more prompts.

    Raises:
        InputError: no cell has a baseline, its name fits none or several, or there is no such metric.
    """
    settings = settings_by_cell(results)
    names = known_metrics(results, metrics)
    baselines = (
        _plain_decoding(settings) if baseline is None else dict.fromkeys(settings, _named(settings, baseline))
    )
    compared = {cell: other for cell, other in baselines.items() if cell != other}
    pairs = Pairs.of(results)
    column: dict[str | None, int] = {cell: number for number, cell in enumerate(pairs.cells)}
    column[None] = len(column)  # a column of NaN
    left = [column[cell] for cell in compared]
    right = [column[other] for other in compared.values()]
    rows: list[dict[str, Any]] = []
    for metric in names:
        values = np.column_stack([pairs.values(results[metric]), np.full(pairs.rows, np.nan)])
        found = paired_differences(*pairs.by_prompt(values[:, left] - values[:, right]))
        for one, (cell, other) in zip(found, compared.items(), strict=True):
            rows.append({"cell": cell, "metric": metric, "baseline": other, **vars(one)})
    frame = pd.DataFrame(
        rows, columns=["cell", "metric", "baseline", "mean", "low", "high", "n", "p", "effect", "needed"]
    ).rename(columns={"mean": "difference"})
    cells = results.drop_duplicates("cell")[["cell", *varying(results)]]
    # A cell's metrics stand together.
    long = cells.merge(frame, on="cell", how="inner", sort=False).reset_index(drop=True)
    long.insert(list(long.columns).index("p") + 1, "p_holm", holm(long["p"].tolist()))
    return long


def _plain_decoding(settings: Settings) -> dict[str, str | None]:
    """The baseline of each cell, None where there is none."""
    plain: dict[tuple[Any, ...], list[str]] = {}
    for cell, values in settings.items():
        if values.get(SCALE) == 1:
            plain.setdefault(_apart_from_guidance(values), []).append(cell)
    if not plain:
        raise InputError(
            f"no cell has {SCALE} 1, plain decoding, to compare with; add it to the sweep, or name a baseline"
        )

    def likeness(cell: str, other: str) -> int:
        return sum(settings[cell][name] == value for name, value in settings[other].items() if name != SCALE)

    baselines: dict[str, str | None] = {}
    for cell, values in settings.items():
        candidates = plain.get(_apart_from_guidance(values), [])
        alike = max(candidates, key=lambda other: likeness(cell, other), default=None)
        baselines[cell] = cell if cell in candidates else alike
    return baselines


def _apart_from_guidance(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The settings that plain decoding depends on."""
    return tuple(
        value for name, value in values.items() if name.partition(".")[0] not in {"guidance", "negatives"}
    )


def _named(settings: Settings, baseline: str | Mapping[str, Any]) -> str:
    """The one cell of that id or those settings."""
    if isinstance(baseline, str):
        if baseline not in settings:
            raise InputError(f"baseline is {baseline!r}, but the cells are {', '.join(settings)}")
        return baseline
    wanted = dict(baseline)
    names = list(dict.fromkeys(name for values in settings.values() for name in values))
    for key in wanted:
        if key not in names:
            raise InputError(f"baseline names {key!r}, but the settings are {', '.join(names)}")
    fits = [
        cell
        for cell, values in settings.items()
        # As a command line writes them: 1, 1.0 and "1" are the same.
        if all(written(values[key]) == written(value) for key, value in wanted.items())
    ]
    if not fits:
        there = {
            key: " or ".join(dict.fromkeys(written(values[key]) for values in settings.values()))
            for key in wanted
        }
        raise InputError(f"baseline {wanted} fits no cell; there are {there}")
    if len(fits) > 1:
        differ = [name for name in names if len({settings[cell][name] for cell in fits}) > 1]
        raise InputError(
            f"baseline {wanted} fits {len(fits)} cells, which differ in {', '.join(differ)}; name that too"
        )
    return fits[0]
