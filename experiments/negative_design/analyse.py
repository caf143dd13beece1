"""Tables and figure of the study: eight planned comparisons, the dose of a weight, four creative prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfg_lab.analysis import PAGE, summary
from cfg_lab.analysis.drawing import error_bars
from cfg_lab.analysis.stats import paired_difference
from cfg_lab.analysis.style import COLOURS, FAINT, in_style, new_figure
from experiments.hypotheses import Hypothesis, one_cell, planned_comparisons, planned_table
from experiments.record import Record, markdown_table, means_table, number_and_interval

METRICS = ("sentiment", "leakage", "relevance", "perplexity", "distinct_1", "length")
DOSES = (0, 0.25, 0.5, 1)
MODES = ("separate", "joined")


def dose(mode: str, weight: float) -> dict[str, object]:
    """The settings of the cell in which "sad" has a weight, and "formal" the weight 1."""
    return {
        "negatives": "custom",
        "negatives.mode": mode,
        "negatives.phrases": f"formal, sad:{weight:g}",
    }


CELLS: dict[str, dict[str, object]] = {
    "no guidance": {"negatives": "none"},
    "own phrases": {"negatives": "own"},
    "the heaviest own phrase": {"negatives": "own_heaviest"},
    '"bad"': {"negatives": "opposite", "negatives.template": "{prompt} It should be bad."},
    '"blurry"': {"negatives": "opposite", "negatives.template": "{prompt} It should be blurry."},
    "own phrases, separate branches": {"negatives": "own_separate"},
    "own phrases, bare list": {"negatives": "own_bare"},
    "own phrases, system message": {"negatives": "own_system"},
    **{f'"formal, sad:{weight:g}", separate': dose("separate", weight) for weight in DOSES},
    **{f'"formal, sad:{weight:g}", joined': dose("joined", weight) for weight in DOSES[1:]},
}
"""The settings of each cell. With weight 0 both modes have the same cell, that of "formal" alone."""

BOTH, SENTIMENT = ("sentiment", "leakage"), ("sentiment",)
HYPOTHESES = tuple(
    Hypothesis(key=f"H{number}", claim=claim, cell=CELLS[cell], baseline=CELLS[baseline], metrics=metrics)
    for number, (claim, cell, baseline, metrics) in enumerate(
        [
            ("specific beats broad", "the heaviest own phrase", '"bad"', BOTH),
            ("related beats unrelated", "the heaviest own phrase", '"blurry"', BOTH),
            ("several beat one", "own phrases", "the heaviest own phrase", BOTH),
            (
                "weights matter, separate",
                '"formal, sad:1", separate',
                '"formal, sad:0.25", separate',
                SENTIMENT,
            ),
            ("weights matter, joined", '"formal, sad:1", joined', '"formal, sad:0.25", joined', SENTIMENT),
            ("joined beats separate", "own phrases", "own phrases, separate branches", BOTH),
            ("the template beats the bare list", "own phrases", "own phrases, bare list", BOTH),
            ("the suffix beats the system prompt", "own phrases", "own phrases, system message", BOTH),
        ],
        1,
    )
)


def main(record: Record) -> None:
    scores = record.scores("negative_design", METRICS)
    # Scores of the same text that were computed in different batches differ in the last digits.
    scores = scores.round(dict.fromkeys(METRICS, 6))
    # There, leakage is that of "formal" and "sad", not that of the prompt's own phrases.
    scores.loc[scores["negatives"] == "custom", "leakage"] = np.nan
    planned = planned_comparisons(scores, HYPOTHESES)
    record.table("hypotheses", planned_table(planned))
    record.table("cells", cells_table(scores))
    record.table("doses", doses_table(scores))
    record.table("rows", rows_table(record.scores("negative_design_rows", METRICS, ["prompts"])))
    record.figure("negative_design", overview(scores, planned))


def cells_table(scores: pd.DataFrame) -> str:
    """A Markdown table of the means of all cells."""
    names = {one_cell(scores, settings): name for name, settings in CELLS.items()}
    named = scores[scores["cell"].isin(list(names))]
    return means_table(named.assign(negative=named["cell"].map(names)), METRICS, ["negative"])


def doses_table(scores: pd.DataFrame) -> str:
    """A Markdown table: sentiment at each weight of "sad", and how many texts are those of the weight 1."""
    rows: list[list[str]] = []
    for weight in DOSES:
        row = [f"{weight:g}"]
        for mode in MODES:
            texts = texts_of(scores, dose(mode, weight))
            (mean,) = summary(texts, ["sentiment"]).to_dict("records")
            at_1 = texts_of(scores, dose(mode, 1))
            # Two texts with the same perplexity to the sixth digit are the same text.
            same = (texts["perplexity"].to_numpy() == at_1["perplexity"].to_numpy()).mean()
            interval = number_and_interval(mean["sentiment"], mean["sentiment_low"], mean["sentiment_high"])
            row += [interval, f"{100 * same:.0f} %"]
        rows.append([*row[:1], str(len(texts)), *row[1:]])
    header = ["weight of “sad”", "n"]
    for mode in MODES:
        header += [f"sentiment, {mode}", "same texts as at weight 1"]
    return markdown_table(header, rows)


def texts_of(scores: pd.DataFrame, settings: dict[str, object]) -> pd.DataFrame:
    """The texts of one cell, in the order of their prompts and samples."""
    return scores[scores["cell"] == one_cell(scores, settings)].sort_values(["prompt_id", "sample"])


def rows_table(scores: pd.DataFrame) -> str:
    """A Markdown table of the four creative prompts: own negative minus no guidance, over samples.

    The samples of one prompt are independent, so here each sample is a unit of the statistics. Intervals hold
    for this prompt, not for others.
    """
    rows: list[list[str]] = []
    for prompt in dict.fromkeys(scores["prompt"]):
        of_prompt = scores[scores["prompt"] == prompt]
        guided = texts_of(of_prompt, {"negatives": "own"})
        plain = texts_of(of_prompt, {"negatives": "none"})
        texts: list[str] = []
        for metric in ("leakage", "sentiment", "perplexity", "distinct_1"):
            d = paired_difference(guided[metric].tolist(), plain[metric].tolist(), plain["sample"].tolist())
            text = number_and_interval(d.mean, d.low, d.high, sign=True)
            texts.append(f"**{text}**" if d.p < 0.05 else text)
        rows.append([prompt, str(len(guided)), *texts])
    return markdown_table(["prompt", "n", "leakage", "sentiment", "perplexity", "distinct_1"], rows)


@in_style
def overview(scores: pd.DataFrame, planned: pd.DataFrame) -> Figure:
    """Left: the differences of the planned comparisons. Right: sentiment over the weight of one phrase."""
    figure = new_figure(PAGE, 2.6)
    panels: Any = figure.subplots(1, 3, width_ratios=[1, 1, 1.1])
    for axes, metric, gain in zip(panels, BOTH, ("rise in sentiment", "fall in leakage"), strict=False):
        forest(axes, planned[planned["metric"] == metric])
        axes.set_title(gain, loc="left", fontweight="bold", fontsize=6.5)
        axes.set_xlabel("steers further →")
    panels[1].set_yticklabels([])
    for number, mode in enumerate(MODES):
        cells = [summary(texts_of(scores, dose(mode, weight)), ["sentiment"]).iloc[0] for weight in DOSES]
        panels[2].errorbar(
            np.array(DOSES) + 0.012 * (2 * number - 1),
            [cell["sentiment"] for cell in cells],
            error_bars(cells, "sentiment"),
            color=COLOURS[number],
            marker="os"[number],
            elinewidth=1,
            label=f"{mode} branch{'es' if mode == 'separate' else ''}",
        )
    panels[2].set_title("H4, H5: dose of one phrase", loc="left", fontweight="bold", fontsize=6.5)
    panels[2].set_xlabel("weight of “sad” beside “formal”")
    panels[2].set_ylabel("sentiment")
    panels[2].set_xticks(DOSES)
    panels[2].grid(axis="y")
    panels[2].legend()
    return figure


def forest(axes: Axes, tests: pd.DataFrame) -> None:
    """One line per hypothesis: gain and 95 % interval. Significant gains (Holm) have a filled marker."""
    keys = [hypothesis.key for hypothesis in HYPOTHESES]
    for row in tests.to_dict("records"):
        y, certain = keys.index(row["key"]), row["p_holm"] < 0.05
        reach = row["high"] - row["difference"]  # intervals of differences are symmetric
        axes.plot([row["gain"] - reach, row["gain"] + reach], [y, y], color=COLOURS[0], linewidth=1)
        axes.plot(
            row["gain"],
            y,
            color=COLOURS[0],
            marker="o",
            markerfacecolor=COLOURS[0] if certain else "white",
            markeredgewidth=0.8,
        )
    axes.axvline(0, color=FAINT, linewidth=0.6, dashes=(2, 2), zorder=0)
    axes.set_yticks(
        range(len(keys)), [f"{hypothesis.key} {hypothesis.claim}" for hypothesis in HYPOTHESES], fontsize=6
    )
    axes.set_ylim(len(keys) - 0.5, -0.5)
    axes.grid(axis="x")


if __name__ == "__main__":
    main(Record.of_command_line("negative_design"))
