"""Tables and the figure of the default study: `python -m experiments.default.analyse`."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.stats import nct, t

from cfg_lab.analysis import comparisons
from cfg_lab.analysis.frame import SCALE
from cfg_lab.analysis.style import COLOURS, FAINT, PAGE, in_style, new_figure
from cfg_lab.study.formats import p_value
from experiments.record import Record, markdown_table, means_table, number_and_interval

METRICS = ("sentiment", "leakage", "perplexity", "relevance", "distinct_1", "toxicity")
"""The study's two aims and its four prices: one Holm correction covers their comparisons, as on the page."""

COMPARISONS = ("own negative − no guidance", "empty negative − no guidance", "own − empty negative")
"""Guided cells at scale 3, and what each is compared with."""

DESIGNS = (
    # name, prompts, texts to decode, comparisons, standard deviation of a prompt's difference in sentiment
    ("pilot: 16 prompts × 2 texts, 5 scales × 2 negatives", 16, 288, 48, 0.18),
    ("120 prompts × 1 text, 3 scales × 2 negatives", 120, 600, 24, 0.24),
    ("200 prompts × 1 text, 2 scales × 2 negatives", 200, 600, 12, 0.24),
)
"""Designs that were considered. The standard deviations are those of the pilot."""

SHOWN = METRICS[:4]  # metrics of the figure


def main(record: Record) -> None:
    """Write the tables and the figure of the study."""
    scores = record.scores("default", METRICS)
    differences = compare(scores)
    record.table("size", size_table())
    record.table("means", means_table(scores, METRICS, ["negatives", SCALE]))
    record.table("differences", differences_by_metric(differences))
    record.figure("differences", draw(differences))


def compare(scores: pd.DataFrame) -> pd.DataFrame:
    """The paired differences of COMPARISONS: rows of `comparisons` with a column `comparison`.

    Differences from no guidance share one Holm correction. Those between the two negatives have their own.
    """
    unguided = comparisons(scores, METRICS)
    guided = scores[scores[SCALE] > 1]
    negatives = comparisons(guided, METRICS, baseline={"negatives": "empty"})
    by_negative = unguided["negatives"].map({"own": COMPARISONS[0], "empty": COMPARISONS[1]})
    return pd.concat(
        [unguided.assign(comparison=by_negative), negatives.assign(comparison=COMPARISONS[2])],
        ignore_index=True,
    )


def differences_by_metric(differences: pd.DataFrame) -> str:
    """A Markdown table with one row per metric and one column per comparison; significant ones are bold."""
    cells = differences.set_index(["metric", "comparison"])
    rows: list[list[str]] = []
    for metric in METRICS:
        row = [metric]
        for comparison in COMPARISONS:
            cell = cells.loc[(metric, comparison)]
            text = number_and_interval(cell["difference"], cell["low"], cell["high"], sign=True)
            bold = "**" if cell["p_holm"] < 0.05 else ""
            row.append(f"{bold}{text}{bold}, {p_value(cell['p_holm'])}")
        rows.append(row)
    return markdown_table(["metric", *COMPARISONS], rows)


def size_table() -> str:
    """A Markdown table of DESIGNS: the width of the interval, and the smallest differences that are found."""
    rows: list[list[str]] = []
    for name, prompts, texts, number, deviation in DESIGNS:
        half_width = t.ppf(0.975, prompts - 1) * deviation / prompts**0.5
        found = [smallest_difference(deviation, prompts, level) for level in (0.05, 0.05 / number)]
        rows.append([name, str(texts), str(number), f"±{half_width:.3f}", *(f"{x:.3f}" for x in found)])
    header = ["design", "texts decoded", "comparisons", "95 % interval", "found alone"]
    return markdown_table([*header, "found after correction"], rows)


def smallest_difference(deviation: float, prompts: int, level: float, power: float = 0.8) -> float:
    """The mean difference that a paired t test at this level finds with this power.

    Args:
        deviation: standard deviation of the prompts' differences.
        prompts: number of prompts.
        level: level of the two-sided test.
        power: probability of finding the difference.
    """
    critical = t.ppf(1 - level / 2, prompts - 1)

    def missing_power(effect: float) -> float:
        return float(1 - nct.cdf(critical, prompts - 1, effect * prompts**0.5)) - power

    return deviation * float(brentq(missing_power, 0.01, 5))


@in_style
def draw(differences: pd.DataFrame) -> Figure:
    """One panel per metric: the three differences with their 95 % intervals. Filled dots are significant."""
    figure = new_figure(PAGE, 1.35)
    panels = figure.subplots(1, len(SHOWN), sharey=True)
    for metric, axes in zip(SHOWN, panels, strict=True):
        rows = differences[differences["metric"] == metric].set_index("comparison")
        for height, comparison in enumerate(reversed(COMPARISONS)):
            row = rows.loc[comparison]
            colour = COLOURS[COMPARISONS.index(comparison)]
            axes.plot([row["low"], row["high"]], [height, height], color=colour)
            fill = colour if row["p_holm"] < 0.05 else "white"
            axes.plot(row["difference"], height, "o", color=colour, markerfacecolor=fill)
        axes.axvline(0, color=FAINT, linewidth=0.6)
        axes.set_title(metric)
        axes.set_ylim(-0.6, len(COMPARISONS) - 0.4)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(COMPARISONS)), list(reversed(COMPARISONS)))
    figure.supxlabel("difference at scale 3", fontsize=7)
    return figure


if __name__ == "__main__":
    main(Record.of_command_line("default"))
