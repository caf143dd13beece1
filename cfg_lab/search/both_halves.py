"""The numbers of cells on both halves of the prompts, and the optimism of choosing.

The optimism of a cell is its gain over plain decoding on the selection half, minus its gain over plain
decoding on the held-out half. Gains are compared, not means, because the prompts of one half can be easier.
The halves have no prompt in common, so the two gains are independent. The interval of their difference
follows from their own intervals (MOVER, Zou & Donner 2008, doi:10.1002/sim.2929).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from cfg_lab.analysis import comparisons, summary
from cfg_lab.analysis.stats import holm
from cfg_lab.search.objectives import Objectives
from cfg_lab.study.formats import compact

HALVES = ("selection", "held_out")

Numbers = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A setting that is decoded on both halves of the prompts.

    Attributes:
        role: "chosen", "default" (the hand-made setting) or "plain" (decoding without guidance).
        label: the settings in words.
        trial: number of its trial; None if it is no trial.
        cells: id of its cell in each half: "selection" and "held_out" -> id.
    """

    role: str
    label: str
    trial: int | None
    cells: Mapping[str, str]


def both_halves(
    results: pd.DataFrame, finalists: Sequence[Finalist], objectives: Objectives
) -> list[dict[str, Any]]:
    """The numbers of every finalist in every column of the objectives.

    Args:
        results: the texts of all cells of the finalists, from `cfg_lab.load_results`.
        finalists: the settings. Exactly one has the role "plain", at most one the role "default".
        objectives: what was optimised.

    Returns:
        One mapping per finalist: `role`, `label`, `trial`, `cells`, `broken` (the limits that its held-out
        mean is beyond), and `numbers`: column -> mapping with
        - `selection`, `held_out`: mean, low, high (95 % interval over prompts) and n (scored texts);
        - `gain`: for each half the paired difference from plain decoding (difference, low, high, p);
        - `optimism`: see above, positive if the selection half promised too much; low, high;
        - `over_default`: on the held-out half, the paired difference from the hand-made setting, with p_holm,
          corrected for all chosen settings and aims.
        A number that cannot be known is None.
    """
    columns = objectives.columns
    means: dict[str, dict[str, Any]] = {
        str(row["cell"]): cast("dict[str, Any]", row)
        for row in summary(results, columns, []).to_dict("records")
    }
    (plain,) = [finalist for finalist in finalists if finalist.role == "plain"]
    default = next((finalist for finalist in finalists if finalist.role == "default"), None)
    over_plain = {half: _differences(results, finalists, plain, half, columns) for half in HALVES}
    over_default = _differences(results, finalists, default, "held_out", columns) if default else {}
    chosen = {finalist.cells["held_out"] for finalist in finalists if finalist.role == "chosen"}
    aims = [aim.column for aim in objectives.aims]
    family = [key for key in over_default if key[0] in chosen and key[1] in aims]
    corrected = dict(zip(family, holm([over_default[key]["p"] for key in family]), strict=True))
    signs = {aim.column: aim.sign for aim in objectives.aims}
    signs = {limit.column: -1 if limit.is_upper else 1 for limit in objectives.limits} | signs

    def numbers(finalist: Finalist, column: str) -> dict[str, Any]:
        gains = {half: over_plain[half].get((finalist.cells[half], column)) for half in HALVES}
        key = (finalist.cells["held_out"], column)
        against = over_default.get(key)
        return {
            **{half: _estimate(means[finalist.cells[half]], column) for half in HALVES},
            "gain": {half: _rounded(gain) for half, gain in gains.items()},
            "optimism": _rounded(_optimism(gains["selection"], gains["held_out"], signs[column])),
            "over_default": _rounded(against and {**against, "p_holm": corrected.get(key, math.nan)}),
        }

    def broken(finalist: Finalist) -> list[str]:
        of_cell, of_plain = means[finalist.cells["held_out"]], means[plain.cells["held_out"]]
        violations = objectives.violations(of_cell, of_plain)
        return [text for text, violation in violations.items() if violation > 0]

    return [
        {
            "role": finalist.role,
            "label": finalist.label,
            "trial": finalist.trial,
            "cells": dict(finalist.cells),
            "broken": broken(finalist),
            "numbers": {column: numbers(finalist, column) for column in columns},
        }
        for finalist in finalists
    ]


def _differences(
    results: pd.DataFrame,
    finalists: Sequence[Finalist],
    reference: Finalist,
    half: str,
    columns: Sequence[str],
) -> dict[tuple[str, str], dict[str, float]]:
    """Paired differences from a finalist in one half: (cell, column) -> difference, low, high, p."""
    of_half = results[results["cell"].isin({finalist.cells[half] for finalist in finalists})]
    table = comparisons(of_half, columns, baseline=reference.cells[half])
    return {
        (str(row["cell"]), str(row["metric"])): {
            name: float(row[name]) for name in ("difference", "low", "high", "p")
        }
        for row in table.to_dict("records")
    }


def _optimism(
    selection: Mapping[str, float] | None, held_out: Mapping[str, float] | None, sign: int
) -> dict[str, float] | None:
    """The difference of two independent gains with its interval, in the direction in which more is better."""
    if selection is None or held_out is None:
        return None
    first, second = (_directed(gain, sign) for gain in (selection, held_out))
    difference = first[0] - second[0]
    return {
        "difference": difference,
        "low": difference - math.hypot(first[0] - first[1], second[2] - second[0]),
        "high": difference + math.hypot(first[2] - first[0], second[0] - second[1]),
    }


def _directed(gain: Mapping[str, float], sign: int) -> tuple[float, float, float]:
    """A gain and its interval; with sign -1, those of the negative of the gain."""
    ends = sorted((sign * gain["low"], sign * gain["high"]))
    return sign * gain["difference"], ends[0], ends[1]


def _estimate(row: Mapping[str, Any], column: str) -> Numbers:
    return _rounded({"mean": row[column], "low": row[f"{column}_low"], "high": row[f"{column}_high"]}) | {
        "n": int(row[f"{column}_n"])
    }


def _rounded(numbers: Mapping[str, float] | None) -> Numbers:
    return {name: compact(value, 6) for name, value in (numbers or {}).items()}
