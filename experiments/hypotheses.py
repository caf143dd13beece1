"""Claims that were planned before a study's run, one comparison of two cells each, and their verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from cfg_lab.analysis import better, comparisons
from cfg_lab.analysis.frame import value_label
from cfg_lab.analysis.stats import holm
from experiments.record import markdown_table, number_and_interval


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A claim that one cell is better than another, planned before the run.

    Attributes:
        key: short name, such as "H1".
        claim: the claim in words.
        cell, baseline: settings that only this cell has, as setting -> value.
        metrics: the metrics that judge the claim. Each says which of its values are better.
    """

    key: str
    claim: str
    cell: Mapping[str, object]
    baseline: Mapping[str, object]
    metrics: Sequence[str]


def planned_comparisons(scores: pd.DataFrame, hypotheses: Sequence[Hypothesis]) -> pd.DataFrame:
    """The planned comparisons of a study, one row per hypothesis and metric.

    Returns:
        Columns `key`, `claim`, `metric`, `difference`, `low`, `high`, `n`, `p` as in
        `cfg_lab.analysis.comparisons`; `p_holm`, corrected for all rows of this table; `gain`, the difference
        with the sign that makes better values positive; `verdict` on the hypothesis, the same in all its
        rows:
        "supported": a metric is significant (5 %) in the claimed direction, none in the other direction.
        "contradicted": the reverse. "mixed": one of each. "not supported": no metric is significant.
    """
    tables: list[pd.DataFrame] = []
    for hypothesis in hypotheses:
        pair = {one_cell(scores, hypothesis.cell), (baseline := one_cell(scores, hypothesis.baseline))}
        table = comparisons(scores[scores["cell"].isin(pair)], hypothesis.metrics, baseline)
        table.insert(0, "key", hypothesis.key)
        table.insert(1, "claim", hypothesis.claim)
        tables.append(table)
    columns = ["key", "claim", "metric", "difference", "low", "high", "n", "p"]
    planned = pd.concat(tables, ignore_index=True)[columns]
    planned["p_holm"] = holm(planned["p"].tolist())
    signs = planned["metric"].map(lambda metric: -1 if better(metric) == "lower" else 1)
    planned["gain"] = planned["difference"] * signs
    planned["verdict"] = ""
    for key, tests in planned.groupby("key"):
        certain = tests.loc[tests["p_holm"] < 0.05, "gain"]
        verdict = {
            (False, False): "not supported",
            (True, False): "supported",
            (False, True): "contradicted",
            (True, True): "mixed",
        }[bool((certain > 0).any()), bool((certain < 0).any())]
        planned.loc[planned["key"] == key, "verdict"] = verdict
    return planned


def planned_table(planned: pd.DataFrame) -> str:
    """A Markdown table of planned comparisons: one row per hypothesis, differences and corrected p values.

    Args:
        planned: from `planned_comparisons`.
    """
    metrics = list(dict.fromkeys(planned["metric"]))
    rows: list[list[str]] = []
    for (key, claim, verdict), tests in planned.groupby(["key", "claim", "verdict"], sort=False):
        by_metric = {row["metric"]: row for row in tests.to_dict("records")}
        texts: list[str] = []
        for metric in metrics:
            row = by_metric.get(metric)
            if row is None:
                texts.append("")
                continue
            difference = number_and_interval(row["difference"], row["low"], row["high"], sign=True)
            texts.append(f"{difference}, {p_value(row['p_holm'])}")
        n = str(int(tests["n"].max()))
        rows.append([str(key), str(claim), n, *texts, str(verdict)])
    return markdown_table(["", "hypothesis", "n", *metrics, "verdict"], rows)


def one_cell(scores: pd.DataFrame, settings: Mapping[str, object]) -> str:
    """The id of the only cell that has these settings.

    Raises:
        SystemExit: no cell has them, or several have.
    """
    cells = scores.drop_duplicates("cell")
    for name, value in settings.items():
        cells = cells[cells[name].map(value_label) == value_label(value)]
    if len(cells) != 1:
        raise SystemExit(f"error: {len(cells)} cells have {dict(settings)}, not one")
    return str(cells["cell"].item())


def p_value(p: float) -> str:
    """A p value with two significant digits, such as "p = 0.013"; "p < 0.001" below that."""
    if p != p:
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p = {min(p, 1):.2g}"
