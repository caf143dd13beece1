"""Tables and figure of the study: every metric as a curve over the guidance scale."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfg_lab.analysis import PAGE, better, comparisons, summary
from cfg_lab.analysis.frame import SCALE, distinct_prompts
from cfg_lab.analysis.stats import holm
from cfg_lab.analysis.style import COLOURS, FAINT, INK, in_style, new_figure
from experiments.record import Record, markdown_table, means_table, number_and_interval

PANELS: Mapping[str, str] = {
    "sentiment": "sentiment",
    "leakage": "leakage of the negative",
    "relevance": "relevance to the prompt",
    "entropy": "entropy, nats per token",
    "bits_per_byte": "bits per byte, same model",
    "evaluator_bits_per_byte": "bits per byte, gemma3-270m",
    "distinct_2": "distinct 2-grams",
    "repeated_4": "repeated 4-grams",
}
"""Metrics of the figure, and the titles of their panels."""

CONTENT = ("sentiment", "leakage", "relevance", "entropy", "length", "stopped")
FLUENCY = ("perplexity", "evaluator_perplexity", "bits_per_byte", "evaluator_bits_per_byte")
FORM = ("distinct_1", "distinct_2", "repeated_4", "compression")
METRICS = (*CONTENT, *FLUENCY, *FORM)

SHOWN_SCALES = (0, 0.5, 1.5, 3, 7)
"""Scales whose differences from plain decoding are in a table. The tests are corrected for all scales."""


def main(record: Record) -> None:
    scores = record.scores("scale", METRICS)
    own = scores[scores["negatives"] == "own"]
    settings = ["negatives", SCALE]
    record.table("content", means_table(scores, CONTENT, settings))
    record.table("form", means_table(scores, [*FLUENCY, *FORM], settings))
    record.table("certain", certain_table(own))
    record.table("empty", empty_table(scores))
    record.figure("scale", curves(scores))


def certain_table(own: pd.DataFrame) -> str:
    """A Markdown table of differences from plain decoding, and of the steps between scales that are certain.

    p values are corrected by Holm's method: once over all differences from plain decoding (every scale and
    metric), and once over all steps.
    """
    from_plain = comparisons(own, METRICS)
    steps = steps_between_scales(own)
    certain_steps = steps[(steps["p_holm"] < 0.05) & (steps["from"] >= 1)]
    rows: list[list[str]] = []
    for metric in METRICS:
        by_scale = {row[SCALE]: row for row in from_plain[from_plain["metric"] == metric].to_dict("records")}
        certain = [scale for scale, row in by_scale.items() if scale > 1 and row["p_holm"] < 0.05]
        moves = [
            f"{row['from']:g} → {row['to']:g} {'↑' if row['difference'] > 0 else '↓'}"
            for row in certain_steps[certain_steps["metric"] == metric].to_dict("records")
        ]
        shown = [difference_text(by_scale[scale]) for scale in SHOWN_SCALES]
        rows.append([metric, *shown, f"{min(certain):g}" if certain else "–", ", ".join(moves) or "–"])
    scales = [f"scale {scale:g}" for scale in SHOWN_SCALES]
    return markdown_table(["", *scales, "certain from", "certain steps above 1"], rows)


def steps_between_scales(own: pd.DataFrame) -> pd.DataFrame:
    """Differences between neighbouring scales, as `comparisons` gives them, with columns `from` and `to`.

    `p_holm` is corrected over all steps and metrics.
    """
    cells = own.drop_duplicates("cell").sort_values(SCALE)
    tables: list[pd.DataFrame] = []
    for low, high in pairwise(cells.to_dict("records")):
        pair = own[own["cell"].isin([low["cell"], high["cell"]])]
        table = comparisons(pair, METRICS, low["cell"])
        table.insert(0, "from", low[SCALE])
        table.insert(1, "to", high[SCALE])
        tables.append(table)
    steps = pd.concat(tables, ignore_index=True)
    steps["p_holm"] = holm(steps["p"].tolist())
    return steps


def empty_table(scores: pd.DataFrame) -> str:
    """A Markdown table of differences of the own negative from the empty one at the same scale."""
    tables = [
        comparisons(pair, METRICS, {"negatives": "empty"}).assign(scale=scale)
        for scale, pair in scores.groupby(SCALE)
        if set(pair["negatives"]) == {"own", "empty"}
    ]
    table = pd.concat(tables, ignore_index=True)
    table["p_holm"] = holm(table["p"].tolist())
    rows: list[list[str]] = []
    for metric, tests in table.groupby("metric", sort=False):
        texts = [difference_text(row) for row in tests.to_dict("records")]
        rows.append([str(metric), str(int(tests["n"].max())), *texts])
    scales = [f"scale {scale:g}" for scale in dict.fromkeys(table["scale"])]
    return markdown_table(["own minus empty", "n", *scales], rows)


@in_style
def curves(scores: pd.DataFrame) -> Figure:
    """Small multiples: each metric over the scale, for the own and the empty negative, with 95 % bands.

    A filled marker differs significantly from plain decoding, after Holm's correction over the figure.
    """
    figure = new_figure(PAGE, 3.5)
    grid: Any = figure.subplots(2, 4, sharex=True)
    lines = {
        "own": ("each prompt's own negative", COLOURS[0], "o"),
        "empty": ("empty negative", COLOURS[1], "s"),
    }
    certain = comparisons(scores, list(PANELS)).query("p_holm < 0.05")
    certain_points = set(zip(certain["cell"], certain["metric"], strict=True))
    plain = scores.loc[scores[SCALE] == 1, "cell"].iloc[0]
    means = summary(scores, list(PANELS), ["negatives", SCALE])
    for number, (metric, title) in enumerate(PANELS.items()):
        axes = grid.flat[number]
        for negatives, (label, colour, marker) in lines.items():
            of_line = (means["negatives"] == negatives) | (means["cell"] == plain)
            draw_line(axes, means[of_line].sort_values(SCALE), metric, label, colour, marker, certain_points)
        finish_panel(axes, metric, title)
    for axes in grid[1]:
        axes.set_xlabel("guidance scale")
        axes.set_xticks([0, 1, 2, 3, 5, 7])
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    prompts = len(set(distinct_prompts(scores)))
    note = f"means of {prompts} prompts, 95 % intervals; filled: differs from no guidance (p < 0.05, Holm)"
    figure.text(0.995, 0.993, note, fontsize=5.5, color=FAINT, ha="right", va="top")
    return figure


def draw_line(
    axes: Axes,
    points: pd.DataFrame,
    metric: str,
    label: str,
    colour: str,
    marker: str,
    certain_points: set[tuple[str, str]],
) -> None:
    """Draw one curve with its band. Points in `certain_points`, as (cell, metric), are filled."""
    x, y = points[SCALE].to_numpy(), points[metric].to_numpy()
    low, high = (points[f"{metric}_{end}"].to_numpy() for end in ("low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, y, color=colour, marker=marker, markerfacecolor="white", markeredgewidth=0.8, label=label)
    filled = [(cell, metric) in certain_points for cell in points["cell"]]
    axes.plot(x[filled], y[filled], color=colour, marker=marker, linestyle="none", markeredgewidth=0.8)


def finish_panel(axes: Axes, metric: str, title: str) -> None:
    """Title, grid, and the line at scale 1, where guidance is off."""
    axes.axvline(1, color=FAINT, linewidth=0.6, dashes=(2, 2), zorder=0)
    axes.grid(axis="y")
    direction = {"higher": " ↑", "lower": " ↓", None: ""}[better(metric)]
    axes.set_title(title + direction, loc="left", color=INK, fontweight="bold", fontsize=6.5)
    if metric.endswith("perplexity"):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")


def difference_text(row: Mapping[str, Any]) -> str:
    """A difference with its interval, in bold if it is significant after correction."""
    text = number_and_interval(row["difference"], row["low"], row["high"], sign=True)
    return f"**{text}**" if row["p_holm"] < 0.05 else text


if __name__ == "__main__":
    main(Record.of_command_line("scale"))
