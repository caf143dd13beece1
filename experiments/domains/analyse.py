"""Tables and figure of the study: summaries, translations, and a model that spells words backwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cfg_lab.analysis import PAGE, comparisons, summary
from cfg_lab.analysis.frame import SCALE, unguided_cells
from cfg_lab.analysis.style import COLOURS, FAINT, INK, in_style, new_figure
from experiments.record import Record, markdown_table, number_and_interval

SUMMARY_METRICS = ("rouge_1", "rouge_l", "copied", "copied_span", "novel_2", "unsupported", "length")
TRANSLATION_METRICS = ("chrf", "bleu", "rouge_1", "copied", "length")
TOY_METRICS = ("exact_match", "chrf", "length")
METRICS = tuple(dict.fromkeys([*SUMMARY_METRICS, *TRANSLATION_METRICS, *TOY_METRICS]))
UNGUIDED = "none"
SOURCE = "no source"
"""The negative of context-aware decoding: the instruction without its article or sentence."""


def main(record: Record) -> None:
    scores = with_negatives(record.scores("domains", METRICS, ["negatives.phrases"], prompt_texts=False))
    sets = {name: scores[scores["prompts"] == name] for name in ("xsum", "translation", "file")}
    record.table("summaries", means_table(sets["xsum"], SUMMARY_METRICS))
    record.table("summary_differences", differences_table(sets["xsum"], SUMMARY_METRICS))
    record.table("translations", means_table(sets["translation"], TRANSLATION_METRICS))
    record.table("translation_differences", differences_table(sets["translation"], TRANSLATION_METRICS))
    record.table("toy", means_table(sets["file"], TOY_METRICS))
    record.table("toy_differences", differences_table(sets["file"], TOY_METRICS))
    record.figure("summaries", differences_of_summaries(sets["xsum"]))


def with_negatives(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores with the column `negative`, which names what guidance steers away from.

    Unguided cells that have the same texts stay only once.
    """
    unguided = scores["cell"].isin(unguided_cells(scores))
    negative = scores["negatives.phrases"].where(scores["negatives"] == "custom", scores["negatives"])
    negative = negative.where(scores["negatives"] != "own", SOURCE)
    negative = negative.where(scores["negatives"] != "empty", "empty source")
    scores = scores.assign(negative=negative.where(~unguided, UNGUIDED))
    cells = scores.groupby(["prompts", "negative", SCALE], sort=False)["cell"].first()
    return scores[scores["cell"].isin(set(cells))].reset_index(drop=True)


def means_table(scores: pd.DataFrame, metrics: Sequence[str]) -> str:
    """A Markdown table of means: one row per cell."""
    rows: list[list[str]] = []
    for row in summary(scores, metrics, ["negative", SCALE]).to_dict("records"):
        means = [number_and_interval(row[m], row[f"{m}_low"], row[f"{m}_high"]) for m in metrics]
        rows.append([row["negative"], f"{row[SCALE]:g}", str(row["texts"]), *means])
    return markdown_table(["negative", "scale", "n", *metrics], rows)


def differences_table(scores: pd.DataFrame, metrics: Sequence[str]) -> str:
    """A Markdown table of differences from decoding without guidance. Significant differences are bold."""
    table = differences(scores, metrics)
    rows: list[list[str]] = []
    for _, cell in table.groupby("cell", sort=False):
        by_metric = {row["metric"]: row for row in cell.to_dict("records")}
        first = by_metric[metrics[0]]
        texts = [difference_text(by_metric[metric]) for metric in metrics]
        rows.append([first["negative"], f"{first['scale']:g}", str(int(first["n"])), *texts])
    return markdown_table(["negative", "scale", "n", *metrics], rows)


def differences(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """`comparisons` with the unguided cell, with the columns `negative` and `scale`.

    p values are corrected by Holm's method over the cells and metrics.
    """
    baseline = str(scores[scores["negative"] == UNGUIDED]["cell"].iloc[0])
    table = comparisons(scores, metrics, baseline)
    cells = scores.drop_duplicates("cell").set_index("cell")
    return table.assign(
        negative=table["cell"].map(cells["negative"]), scale=table["cell"].map(cells[SCALE]).astype(float)
    )


def difference_text(row: Mapping[Any, Any]) -> str:
    """A difference with its interval, in bold if it is significant after correction."""
    text = number_and_interval(row["difference"], row["low"], row["high"], sign=True)
    return f"**{text}**" if row["p_holm"] < 0.05 else text


@in_style
def differences_of_summaries(scores: pd.DataFrame) -> Figure:
    """Differences of every guided cell from decoding without guidance: one panel per metric."""
    titles = {
        "rouge_l": "ROUGE-L ↑",
        "unsupported": "unsupported names ↓",
        "copied": "copied words",
        "length": "length, tokens",
    }
    table = differences(scores, SUMMARY_METRICS)
    labels = list(dict.fromkeys(zip(table["negative"], table["scale"], strict=True)))
    figure = new_figure(PAGE, 0.9 + 0.25 * len(labels))
    panels: Any = figure.subplots(1, len(titles), sharey=True)
    for axes, (metric, title) in zip(panels, titles.items(), strict=True):
        for row in table[table["metric"] == metric].to_dict("records"):
            y = labels.index((row["negative"], row["scale"]))
            colour = COLOURS[1] if row["negative"] == SOURCE else COLOURS[0]
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1)
            filled = colour if row["p_holm"] < 0.05 else "white"
            axes.plot([row["difference"]], [y], marker="o", color=colour, markerfacecolor=filled)
        axes.axvline(0, color=FAINT, linewidth=0.6, dashes=(2, 2), zorder=0)
        axes.set_title(title, loc="left", color=INK, fontweight="bold", fontsize=6.5)
        axes.grid(axis="x")
    panels[0].set_yticks(range(len(labels)), [f"{negative}, scale {scale:g}" for negative, scale in labels])
    panels[0].invert_yaxis()
    prompts = scores["prompt_id"].nunique()
    note = f"differences from no guidance, {prompts} articles, 95 % intervals; filled: p < 0.05 (Holm)"
    figure.supxlabel(note, fontsize=5.5, color=FAINT, x=0.995, ha="right")
    return figure


if __name__ == "__main__":
    main(Record.of_command_line("domains"))
