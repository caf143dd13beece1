"""Tables and the figure of the study `cost_matched`: `python -m experiments.cost_matched.analyse`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cfg_lab.analysis.stats import Difference
from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.style import COLOURS, FAINT, PAGE, in_style, new_figure
from experiments.record import Record, markdown_table
from experiments.zero_shot.analyse import (
    QUOTED,
    RAW,
    TASKS,
    by_scale,
    change,
    differences,
    load,
    means,
    measured,
    points,
    with_tests,
)

SMALL, LARGE = "smollm2", "gemma3-270m"

SPLITS = 1000
"""Random splits of the items into halves."""

ALL_TASKS = "all tasks"
"""Name of the row that pools the items of all tasks."""

Answers = Mapping[str, Floats]
"""Way of answering -> 1 for each item that is answered rightly, NaN for an item that is missing, [items]."""


def main(record: Record) -> None:
    """Make all tables and the figure of the record."""
    items = load(record)
    answers = answers_by_task(items)
    record.table("selection", selection_table(items, answers))
    record.table("models", models_table(answers))
    record.figure("models", draw(answers))


def answers_by_task(items: pd.DataFrame) -> dict[str, Answers]:
    """For each task, and for all tasks together, the answers of both models.

    The ways of answering are `small` and `large` (no guidance), `best` (the small model at the scale that is
    best on the same items) and `held_out` (at the scale that is best on the other half of the items).
    """
    by_task: dict[str, Answers] = {}
    for task in dict.fromkeys(task for task, _ in measured(items)):
        small = by_scale(items, SMALL, task, RAW[task, QUOTED[task]])
        large = by_scale(items, LARGE, task, QUOTED[task])[1.0]
        right = small.to_numpy(np.float64)
        by_task[task] = {
            "small": small[1.0].to_numpy(np.float64),
            "best": right[:, right.sum(0).argmax()],
            "held_out": held_out(right)[0],
            "large": large.reindex(small.index).to_numpy(np.float64),
        }
    ways = next(iter(by_task.values()))
    pooled = {way: np.concatenate([answers[way] for answers in by_task.values()]) for way in ways}
    return {**by_task, ALL_TASKS: pooled}


def held_out(right: Floats) -> tuple[Floats, Floats]:
    """Answers at a scale that was chosen on other items.

    1. Split the items into two random halves.
    2. In each half, choose the scale with most right answers. Of equal scales, choose the smallest.
    3. Answer each half at the scale that was chosen on the other half.
    4. Repeat for SPLITS splits, and average over them, so that no single split decides.

    Args:
        right: 1 for a right answer, [items, scales]; scales in ascending order.

    Returns:
        For each item the share of splits in which it is answered rightly, [items], and for each scale the
        share of halves in which it is chosen, [scales].
    """
    generator = np.random.default_rng(0)
    count, scales = right.shape
    total, chosen = np.zeros(count), np.zeros(scales)
    for _ in range(SPLITS):
        order = generator.permutation(count)
        halves = order[: count // 2], order[count // 2 :]
        for choice, report in (halves, halves[::-1]):
            scale = right[choice].sum(0).argmax()
            total[report] += right[report, scale]
            chosen[scale] += 1
    return total / SPLITS, chosen / (2 * SPLITS)


def selection_table(items: pd.DataFrame, answers: Mapping[str, Answers]) -> str:
    """The gain of guidance with the scale chosen on the reported items, and chosen on the other half."""
    rows: list[list[str | Difference]] = []
    for task, ways in answers.items():
        gains = [ways["best"] - ways["small"], ways["held_out"] - ways["small"]]
        (held_out_gain,) = differences(gains[1][:, None])
        best, lost = change(100 * gains[0].mean()), change(100 * (gains[1] - gains[0]).mean())
        scale, usual = ("", "") if task == ALL_TASKS else _choices(items, task)
        rows.append([TASKS.get(task, task), str(len(gains[0])), scale, best, usual, held_out_gain, lost])
    header = ["task", "n", "best scale", "gain, chosen on the same items", "usual choices on one half"]
    return markdown_table([*header, "gain on the other half", "other − same"], with_tests(rows))


def _choices(items: pd.DataFrame, task: str) -> tuple[str, str]:
    """The best scale on all items, and the scales that are chosen most often on one half."""
    table = by_scale(items, SMALL, task, RAW[task, QUOTED[task]])
    right = table.to_numpy(np.float64)
    shares = held_out(right)[1]
    usual = [f"{table.columns[scale]:g} ({shares[scale]:.0%})" for scale in np.argsort(-shares)[:3]]
    return f"{table.columns[right.sum(0).argmax()]:g}", ", ".join(usual).replace("%", " %")


def models_table(answers: Mapping[str, Answers]) -> str:
    """Accuracy of the small model with and without guidance, beside that of the large model without.

    The items are those that the large model has answered.
    """
    rows: list[list[str | Difference]] = []
    for task, all_items in answers.items():
        ways = {way: values[~np.isnan(all_items["large"])] for way, values in all_items.items()}
        levels = [points(*means(ways[way][:, None])[0]) for way in ("small", "held_out", "large")]
        changes = [
            differences((ways[way] - ways["large"])[:, None])[0] for way in ("small", "held_out", "best")
        ]
        rows.append([TASKS.get(task, task), str(len(ways["large"])), *levels, *changes])
    header = ["task", "n", "small", "small, guided", "large", "small − large", "small, guided − large"]
    return markdown_table([*header, "small, guided at the best scale − large"], with_tests(rows))


@in_style
def draw(answers: Mapping[str, Answers]) -> Figure:
    """Differences from the unguided large model: the small model without guidance, held out, and best."""
    figure = new_figure(PAGE, 1.6)
    panels: Any = figure.subplots(1, len(answers), sharex=True, sharey=True)
    ways = {"best": "guided, best scale", "held_out": "guided, held-out scale", "small": "no guidance"}
    for axes, (task, values) in zip(panels, answers.items(), strict=True):
        for height, (way, colour) in enumerate(zip(ways, COLOURS, strict=False)):
            (gap,) = differences((values[way] - values["large"])[:, None])
            axes.plot([100 * gap.low, 100 * gap.high], [height, height], color=colour)
            axes.plot(100 * gap.mean, height, "o", color=colour)
        axes.axvline(0, color=FAINT, linewidth=0.6)
        axes.set_title(TASKS.get(task, task))
        axes.set_ylim(-0.6, len(ways) - 0.4)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(ways)), list(ways.values()))
    figure.supxlabel(
        "accuracy of SmolLM2-135M minus that of unguided Gemma 3 270M, percentage points", fontsize=7
    )
    return figure


if __name__ == "__main__":
    main(Record.of_command_line("cost_matched"))
