"""Tables and the figure of the study `zero_shot`: `python -m experiments.zero_shot.analyse`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cfg_lab
from cfg_lab.analysis.frame import SCALE, TASK
from cfg_lab.analysis.stats import Difference, holm, mean_intervals, paired_differences
from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.style import COLOURS, FAINT, PAGE, in_style, new_figure
from experiments.record import Record, markdown_table

MODELS = {"smollm2": "SmolLM2-135M-Instruct", "gemma3-270m": "Gemma 3 270M"}
SWEEPS = ("zero_shot_smollm2", "zero_shot_gemma3")
TASKS = {"hellaswag": "HellaSwag", "boolq": "BoolQ", "piqa": "PIQA", "truthfulqa_mc1": "TruthfulQA"}
METRICS = ("acc", "acc_norm", "acc_raw", "acc_norm_raw", "acc_pmi", "majority", "chance")

RAW = {
    ("hellaswag", "acc"): "acc_raw",
    ("hellaswag", "acc_norm"): "acc_norm_raw",
    ("boolq", "acc"): "acc_raw",
    ("piqa", "acc"): "acc_raw",
    ("piqa", "acc_norm"): "acc_norm_raw",
    ("truthfulqa_mc1", "acc"): "acc_raw",
}
"""Task and metric of lm-eval -> our column for the same metric with the paper's unnormalised score."""

QUOTED = {"hellaswag": "acc_norm", "boolq": "acc", "piqa": "acc_norm", "truthfulqa_mc1": "acc"}
"""The metric of each task that the paper quotes; for TruthfulQA, which it does not have, lm-eval's metric."""

SHOWN = (1.0, 1.5, 2.0, 3.0, 7.0)
"""Scales in tables. They are those of PAPER."""

PAPER = {
    ("hellaswag", "acc"): ((28.9, 30.0, 30.6, 31.0, 32.0), (28.4, 29.2, 30.0, 30.6, 31.4)),
    ("hellaswag", "acc_norm"): ((31.1, 31.9, 32.3, 32.3, 31.9), (30.1, 31.2, 31.5, 31.5, 31.0)),
    ("piqa", "acc"): ((62.9, 63.3, 63.4, 62.6, 62.0), (61.6, 61.9, 61.6, 60.4, 57.6)),
    ("piqa", "acc_norm"): ((62.5, 63.8, 64.4, 63.5, 62.0), (61.4, 62.1, 60.8, 60.7, 57.9)),
    ("boolq", "acc"): ((48.7, 57.0, 59.8, 61.4, 61.9), (55.0, 58.3, 59.8, 60.0, 60.0)),
}
"""Accuracies of GPT2-small and Pythia-160M at the scales SHOWN, per cent (Sanchez et al. 2023)."""

PAPER_MODELS = ("GPT2-small", "Pythia-160M")


def main(record: Record) -> None:
    """Make all tables and the figure of the record."""
    items = load(record)
    record.table("raw", curves_table(items, raw=True))
    record.table("normalised", curves_table(items, raw=False))
    record.table("scores", scores_table(items))
    record.table("boolq", boolq_table(items))
    record.table("baselines", baselines_table(items))
    record.table("lengths", lengths_table(load_lengths(record)))
    record.figure("curves", draw(items))


def load(record: Record) -> pd.DataFrame:
    """The scores of both models: one row per model, task, scale and item. Texts of the data are left out."""
    return pd.concat(
        [record.scores(sweep, METRICS, ["model", TASK], prompt_texts=False) for sweep in SWEEPS],
        ignore_index=True,
    )


def load_lengths(record: Record) -> pd.DataFrame:
    """Whether the longest answer is right, and whether each score chooses it: one row per cell and item.

    As with `Record.scores`, the values of each model are kept in the record, and read from there without
    results.
    """
    file = record.folder / "lengths.parquet"
    rows: list[dict[str, object]] = []
    for sweep in SWEEPS:
        if (record.results / sweep).is_dir():
            for item in cfg_lab.load_results(record.results / sweep).to_dict("records"):
                choices = pd.DataFrame(list(item["choices"]))
                longest = choices["text"].str.len() == choices["text"].str.len().max()
                rows.append(
                    {name: item[name] for name in ("model", TASK, SCALE, "prompt_id")}
                    | {
                        "right": float((longest & choices["right"]).any()),
                        "raw": float(longest[choices["raw"].idxmax()]),
                        "normalised": float(longest[choices["guided"].idxmax()]),
                    }
                )
    if rows:
        new = pd.DataFrame(rows)
        kept = pd.read_parquet(file) if file.is_file() else new[:0]
        kept = kept[~kept["model"].isin(new["model"])]
        pd.concat([kept, new]).to_parquet(file, compression="zstd", index=False)
    return pd.read_parquet(file)


def by_scale(items: pd.DataFrame, model: str, task: str, metric: str) -> pd.DataFrame:
    """The values of a metric, one row per item and one column per scale."""
    rows = items[(items["model"] == model) & (items[TASK] == task)]
    return rows.pivot(index="prompt_id", columns=SCALE, values=metric)


def measured(items: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Every task and model of the results, in the order of TASKS and MODELS."""
    for task in TASKS:
        for model in MODELS:
            if ((items[TASK] == task) & (items["model"] == model)).any():
                yield task, model


def means(values: pd.DataFrame | Floats) -> list[tuple[float, float, float]]:
    """Mean and 95 % interval over items of each column, in per cent."""
    array = np.asarray(values, np.float64)
    estimates = mean_intervals(np.nan_to_num(array), (~np.isnan(array)).astype(np.float64))
    return [(100 * e.mean, 100 * max(e.low, 0), 100 * min(e.high, 1)) for e in estimates]


def differences(values: Floats) -> list[Difference]:
    """Mean, 95 % interval over items and p value of each column of paired differences; NaN is left out."""
    return paired_differences(np.nan_to_num(values), (~np.isnan(values)).astype(np.float64))


def points(mean: float, low: float, high: float, *, sign: bool = False) -> str:
    """Per cent or percentage points with an interval, such as "+3.3 [−1.3, 8.0]"."""
    if mean != mean:
        return "–"
    ends = ", ".join(f"{end:.1f}" for end in (low, high)).replace("nan", "–")
    return f"{mean:{'+' if sign else ''}.1f} [{ends}]".replace("-0.0", "0.0").replace("-", "−")


def change(value: float) -> str:
    """A change in percentage points without an interval, such as "+3.3"."""
    return f"{value:+.1f}".replace("-", "−")


def with_tests(rows: Sequence[Sequence[str | Difference]]) -> list[list[str]]:
    """Rows of a table with differences as text, bold if significant after Holm's correction over them all."""
    tests = [cell for row in rows for cell in row if isinstance(cell, Difference)]
    significant = iter(np.array(holm([test.p for test in tests])) < 0.05)

    def text(test: Difference) -> str:
        number = points(100 * test.mean, 100 * test.low, 100 * test.high, sign=True)
        return f"**{number}**" if next(significant) else number

    return [[text(cell) if isinstance(cell, Difference) else cell for cell in row] for row in rows]


def curves_table(items: pd.DataFrame, *, raw: bool) -> str:
    """Accuracy without guidance, and the change of accuracy at other scales, beside the paper's."""
    rows: list[list[str | Difference]] = []
    for (task, metric), column in RAW.items():
        if task == "boolq" and not raw:
            continue  # its answers are single tokens, so both scores are equal
        for model in (model for other, model in measured(items) if other == task):
            table = by_scale(items, model, task, column if raw else metric)
            unguided = table[1.0].to_numpy()
            changes = differences(table[list(SHOWN[1:])].to_numpy() - unguided[:, None])
            start = points(*means(table[[1.0]])[0])
            rows.append([TASKS[task], metric, MODELS[model], str(len(table)), start, *changes])
        if raw:
            for model, curve in zip(PAPER_MODELS, PAPER.get((task, metric), ()), strict=False):
                changed = [change(value - curve[0]) for value in curve[1:]]
                rows.append([TASKS[task], metric, f"paper: {model}", "all", f"{curve[0]:.1f}", *changed])
    header = ["task", "metric", "model", "n", "scale 1", *(f"{scale:g} − 1" for scale in SHOWN[1:])]
    return markdown_table(header, with_tests(rows))


def scores_table(items: pd.DataFrame) -> str:
    """Accuracy with the unnormalised score minus accuracy with the normalised score, at the same scale."""
    rows: list[list[str | Difference]] = []
    for (task, metric), column in RAW.items():
        for model in (model for other, model in measured(items) if other == task):
            scales = list(SHOWN[1:])
            raw, normalised = (by_scale(items, model, task, name)[scales] for name in (column, metric))
            changes = differences(raw.to_numpy() - normalised.to_numpy())
            rows.append([TASKS[task], metric, MODELS[model], str(len(raw)), *changes])
    header = ["task", "metric", "model", "n", *(f"scale {scale:g}" for scale in SHOWN[1:])]
    return markdown_table(header, with_tests(rows))


def boolq_table(items: pd.DataFrame) -> str:
    """Whether BoolQ's accuracy is more than the rate at which the more frequent answer is chosen.

    BoolQ has two answers. So the more frequent one was chosen where it is right and the item was answered
    rightly, and where it is wrong and the item was answered wrongly.
    """
    rows: list[list[str]] = []
    for model in (model for task, model in measured(items) if task == "boolq"):
        right = by_scale(items, model, "boolq", "acc_raw")[list(SHOWN)]
        majority = by_scale(items, model, "boolq", "majority")[list(SHOWN)]
        chosen = (right == majority).astype(float)
        share = majority.mean()  # of items, at each scale
        balanced = right * (0.5 / share * majority + 0.5 / (1 - share) * (1 - majority))
        for scale, *cells in zip(
            SHOWN, means(right), means(chosen), means(balanced), means(majority), strict=True
        ):
            rows.append([MODELS[model], f"{scale:g}", str(len(right)), *(points(*cell) for cell in cells)])
    header = ["model", "scale", "n", "accuracy", "the more frequent answer is chosen in"]
    return markdown_table([*header, "balanced accuracy", "the more frequent answer is right in"], rows)


def baselines_table(items: pd.DataFrame) -> str:
    """Accuracy of pointwise mutual information, beside no guidance and answers that need no model."""
    rows: list[list[str | Difference]] = []
    for task, model in measured(items):
        tables = [
            by_scale(items, model, task, name)[1.0] for name in ("chance", "majority", "acc", "acc_pmi")
        ]
        texts = [points(*means(table.to_frame())[0]) for table in tables]
        (gain,) = differences((tables[3] - tables[2]).to_numpy()[:, None])
        rows.append([TASKS[task], MODELS[model], str(len(tables[0])), *texts, gain])
    header = ["task", "model", "n", "chance", "majority", "no guidance (acc)", "PMI", "PMI − no guidance"]
    return markdown_table(header, with_tests(rows))


def lengths_table(lengths: pd.DataFrame) -> str:
    """How often the longest answer is right, and how often each score chooses it.

    BoolQ is left out: its answers are "yes" and "no".
    """
    rows: list[list[str]] = []
    for task, model in measured(lengths):
        if task == "boolq":
            continue
        right = by_scale(lengths, model, task, "right")[[1.0]]
        row = [TASKS[task], MODELS[model], str(len(right)), points(*means(right)[0])]
        unguided, *raw = means(by_scale(lengths, model, task, "raw")[[1.0, 2.0, 7.0]])
        normalised = means(by_scale(lengths, model, task, "normalised")[[2.0, 7.0]])
        rows.append([*row, *(points(*cell) for cell in (unguided, *raw, *normalised))])
    header = ["task", "model", "n", "the longest is right", "chosen at scale 1", "raw, 2", "raw, 7"]
    return markdown_table([*header, "normalised, 2", "normalised, 7"], rows)


@in_style
def draw(items: pd.DataFrame) -> Figure:
    """Accuracy against the scale: one row of panels per model, one column per task."""
    figure = new_figure(PAGE, 3.4)
    panels: Any = figure.subplots(len(MODELS), len(TASKS), sharex=True, sharey="col", squeeze=False)
    for row, model in enumerate(MODELS):
        for column, task in enumerate(TASKS):
            axes = panels[row, column]
            if row == 0:
                per_character = ", per character" if QUOTED[task] == "acc_norm" else ""
                axes.set_title(f"{TASKS[task]}{per_character}")
            if (task, model) in measured(items):
                _draw_curves(axes, items, model, task)
            axes.set_xscale("log")
            axes.set_xticks([1, 1.5, 2, 3, 5, 7], ["1", "1.5", "2", "3", "5", "7"])
            axes.minorticks_off()
        panels[row, 0].set_ylabel(f"{MODELS[model]}\naccuracy, %")
    for axes in panels[-1]:
        axes.set_xlabel("guidance scale")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _draw_curves(axes: Any, items: pd.DataFrame, model: str, task: str) -> None:
    """The curves of one panel: both scores with 95 % intervals, the paper's models and the majority rate."""
    metric = QUOTED[task]
    curves = ((RAW[task, metric], "the paper's score (raw)", "-"), (metric, "normalised score", "--"))
    for (name, label, dashes), colour in zip(curves, COLOURS, strict=False):
        table = by_scale(items, model, task, name)
        mean, low, high = np.array(means(table)).T
        axes.plot(table.columns, mean, dashes, color=colour, label=f"{label}, 95 % interval")
        axes.fill_between(table.columns, low, high, color=colour, alpha=0.15, linewidth=0)
    for name, curve, dashes in zip(PAPER_MODELS, PAPER.get((task, metric), ()), ("-", ":"), strict=False):
        axes.plot(SHOWN, curve, dashes, color=FAINT, linewidth=0.7, label=f"{name} in the paper")
    majority = 100 * by_scale(items, model, task, "majority").to_numpy().mean()
    axes.axhline(majority, color=COLOURS[2], linestyle=(0, (4, 2)), linewidth=0.8, label="constant answer")


if __name__ == "__main__":
    main(Record.of_command_line("zero_shot"))
