"""Tables and figure of the study: valid syntax, and problems solved, by guidance scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

from cfg_lab.analysis import PAGE, comparisons, summary
from cfg_lab.analysis.frame import SCALE, unguided_cells
from cfg_lab.analysis.stats import holm, mean_interval
from cfg_lab.analysis.style import COLOURS, FAINT, INK, MARKERS, in_style, new_figure
from experiments.record import Record, markdown_table, number_and_interval

METRICS = ("syntax_valid", "passes", "perplexity", "repeated_2", "length")
COLD, WARM = 0.2, 0.8
"""Temperatures of the two sweeps: one sample per problem, and ten."""


def main(record: Record) -> None:
    scores = record.scores("code", METRICS, ["samples"], prompt_texts=False)
    cold = scores[scores["sampling.temperature"] == COLD]
    warm = scores[scores["sampling.temperature"] == WARM]
    record.table("scales", scales_table(cold))
    record.table("differences", differences_table(cold, warm))
    record.table("samples", samples_table(warm))
    record.table("solved", solved_table(pd.concat([once(cold), once(warm)])))
    record.figure("scales", curves(cold))


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that one of k samples passes, estimated without bias from a larger number of samples.

    Chen et al. 2021 (arXiv:2107.03374): 1 - C(samples - passed, k) / C(samples, k).

    >>> pass_at_k(10, 1, 1), pass_at_k(10, 0, 5), pass_at_k(10, 6, 5)
    (0.1, 0.0, 1.0)

    Args:
        samples: number of samples, at least k.
        passed: number of samples that pass.
        k: number of tries.
    """
    failed = samples - passed
    fails_k_times = np.prod(1 - k / np.arange(failed + 1, samples + 1)) if failed >= k else 0.0
    return round(float(1 - fails_k_times), 12)


def once(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores without the unguided cells that equal another unguided cell."""
    unguided = scores[scores["cell"].isin(unguided_cells(scores))]["cell"].unique()
    return scores[~scores["cell"].isin(set(unguided[1:]))].assign(
        negatives=lambda frame: frame["negatives"].where(~frame["cell"].isin(set(unguided)), "none")
    )


def scales_table(cold: pd.DataFrame) -> str:
    """Means of every cell with one sample. The interval of pass@1 is that of Clopper and Pearson."""
    rows: list[list[str]] = []
    for row in summary(once(cold), METRICS, ["negatives", SCALE]).to_dict("records"):
        passes: list[float] = once(cold)[once(cold)["cell"] == row["cell"]]["passes"].tolist()
        exact: Any = binomtest(int(sum(passes)), len(passes)).proportion_ci(method="exact")
        cells = [
            number_and_interval(row[m], row[f"{m}_low"], row[f"{m}_high"])
            if m != "passes"
            else number_and_interval(sum(passes) / len(passes), exact.low, exact.high)
            for m in METRICS
        ]
        rows.append([row["negatives"], f"{row[SCALE]:g}", str(row["texts"]), *cells])
    names = ["syntax_valid", "pass@1", *METRICS[2:]]
    return markdown_table(["negatives", "scale", "n", *names], rows)


def differences_table(cold: pd.DataFrame, warm: pd.DataFrame) -> str:
    """Differences from the unguided cell with the same temperature, on the same problems."""
    tables = [comparisons(once(part), METRICS) for part in (cold, warm)]
    for table, part, temperature in zip(tables, (cold, warm), (COLD, WARM), strict=True):
        table["temperature"] = temperature
        settings = once(part).drop_duplicates("cell").set_index("cell")
        table["negatives"], table["scale"] = (
            table["cell"].map(settings[name]) for name in ("negatives", SCALE)
        )
    table = pd.concat(tables, ignore_index=True)
    table["p_holm"] = holm(table["p"].tolist())
    rows: list[list[str]] = []
    for _, cell in table.groupby(["temperature", "cell"], sort=False):
        by_metric = {row["metric"]: row for row in cell.to_dict("records")}
        first = by_metric[METRICS[0]]
        names = [f"{first['temperature']:g}", first["negatives"], f"{first['scale']:g}", str(int(first["n"]))]
        rows.append([*names, *(difference_text(by_metric[metric]) for metric in METRICS)])
    return markdown_table(
        ["temperature", "negatives", "scale", "n", "syntax_valid", "pass@1", *METRICS[2:]], rows
    )


def difference_text(row: Mapping[Any, Any]) -> str:
    """A difference with its interval, in bold if it is significant after correction."""
    text = number_and_interval(row["difference"], row["low"], row["high"], sign=True)
    return f"**{text}**" if row["p_holm"] < 0.05 else text


def samples_table(warm: pd.DataFrame) -> str:
    """pass@k of the cells with several samples per problem. Intervals are over problems."""
    rows: list[list[str]] = []
    samples = int(warm["samples"].iloc[0])
    tries = sorted({1, min(5, samples), samples})
    for scale, cell in warm.groupby(SCALE):
        passed = cell.groupby("prompt_id")["passes"].sum().astype(int)
        estimates = [[pass_at_k(samples, count, k) for count in passed] for k in tries]
        intervals = [mean_interval(values, range(len(values))) for values in estimates]
        texts = [number_and_interval(each.mean, max(0, each.low), min(1, each.high)) for each in intervals]
        rows.append([f"{scale:g}", str(len(passed)), str(len(cell)), *texts])
    return markdown_table(["scale", "problems", "n", *(f"pass@{k}" for k in tries)], rows)


def solved_table(scores: pd.DataFrame) -> str:
    """The problems that any text solves, with the number of texts that solve them."""
    solved = scores[scores["passes"] == 1].drop_duplicates(["cell", "prompt_id", "sample"])
    texts = scores.groupby("prompt_id").size()
    rows = [
        [str(problem), str(len(cell)), str(texts[problem])]
        for problem, cell in sorted(solved.groupby("prompt_id"), key=lambda item: -len(item[1]))
    ]
    return markdown_table(["problem", "texts that pass", "texts"], rows)


@in_style
def curves(cold: pd.DataFrame) -> Figure:
    """Valid syntax and pass@1 over the scale, for both negatives, with 95 % bands."""
    figure = new_figure(PAGE, 2.2)
    panels: Any = figure.subplots(1, 3)
    metrics = {"syntax_valid": "valid syntax", "passes": "pass@1", "length": "length, tokens"}
    means = summary(cold, list(metrics), ["negatives", SCALE])
    for axes, (metric, title) in zip(panels, metrics.items(), strict=True):
        for number, (negatives, cells) in enumerate(means.groupby("negatives")):
            line = cells.sort_values(SCALE)
            colour, x = COLOURS[number], line[SCALE].to_numpy()
            low, high = (line[f"{metric}_{end}"].to_numpy() for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(x, line[metric].to_numpy(), color=colour, marker=MARKERS[number], label=str(negatives))
        axes.set_title(title, loc="left", color=INK, fontweight="bold")
        axes.set_xlabel("guidance scale (1 is off)")
        axes.grid(axis="y")
    panels[0].legend(title="negatives")
    note = f"{cold['prompt_id'].nunique()} problems, temperature {COLD:g}, 95 % intervals"
    figure.supxlabel(note, fontsize=5.5, color=FAINT, x=0.995, ha="right")
    return figure


if __name__ == "__main__":
    main(Record.of_command_line("code"))
