"""Tables and figure of the study `learned_scale`: `python -m experiments.learned_scale.analyse`."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cfg_lab
from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.style import COLOURS, PAGE, in_style, new_figure
from experiments.curves import (
    along,
    at_divergence,
    draw_curves,
    draw_interval,
    resampled_means,
    with_differences,
    with_interval,
)
from experiments.record import Record, markdown_table

METRICS = (
    "sentiment",
    "leakage",
    "perplexity",
    "kl_from_plain",
    "relevance",
    "distinct_2",
    "length",
    "gflop",
)
COLUMNS = ("reward", "sentiment", "leakage", "kl", "nats", "relevance")
STRENGTH = 0.2
"""What a text pays in the reward, per nat of divergence per token."""
HALVES = ("selection", "held_out")
OTHERS = ("policy", "shuffled")

Means = dict[str, dict[str, Floats]]


def main(record: Record) -> None:
    """Make all tables and the figure of the record."""
    scores = record.scores("learned_scale", METRICS, ("guidance.adaptive", "guidance.schedule"))
    measure(record)
    scores = scores.assign(
        cell=scores.apply(method, axis=1),
        nats=np.log(scores["perplexity"]),
        kl=scores["kl_from_plain"],
        reward=scores["sentiment"] - STRENGTH * scores["kl_from_plain"],
    ).drop_duplicates(["prompts.half", "cell", "prompt_id", "sample"])
    halves = {half: scores[scores["prompts.half"] == half] for half in HALVES}
    means = {half: resampled_means(texts, COLUMNS) for half, texts in halves.items()}
    best = best_constant(means["selection"])
    record.table("cells", cells_table(means, halves["held_out"].groupby("cell").size()))
    record.table("differences", differences_table(means["held_out"], best))
    record.table("moments", moments_table(means["held_out"]))
    record.table("divergence", divergence_table(means["held_out"]))
    record.table("choices", choices_table(pd.read_parquet(record.folder / "choices.parquet")))
    record.table("cost", cost_table(json.loads((record.folder / "policy.json").read_text())["notes"], best))
    record.figure("trade_off", trade_off(means["held_out"]))


def measure(record: Record) -> None:
    """Copy the policy, and write the scale of every token of its held-out texts, if there are results."""
    folder = record.results / "learned_scale"
    if not folder.is_dir():
        return
    shutil.copy(folder / "policy.json", record.folder)
    results = pd.DataFrame(cfg_lab.load_results(folder))
    is_policy = (results["guidance.adaptive"] == "policy") & (results["guidance.schedule"] == "constant")
    texts = results[is_policy & (results["prompts.half"] == "held_out")]
    rows = [
        {"step": step, "scale": round(float(scale), 4), "divergence": float(divergence)}
        for text in texts.to_dict("records")
        for step, (scale, divergence) in enumerate(
            zip(text["trace_scale"], text["trace_divergence"], strict=True)
        )
    ]
    pd.DataFrame(rows).to_parquet(record.folder / "choices.parquet", compression="zstd", index=False)


def method(text: pd.Series) -> str:
    """The name of a text's cell in tables."""
    if text["guidance.adaptive"] == "policy":
        return "shuffled" if text["guidance.schedule"] == "shuffled" else "policy"
    scale = text["guidance.scale"]
    if text["guidance.adaptive"] == "kl_budget":
        name = f"KL budget {text['guidance.adaptive.nats']:g}"
        return f"shuffled {name}" if text["guidance.schedule"] == "shuffled" else name
    return "plain" if scale == 1 else f"constant {scale:g}"


def constants(means: Means) -> list[str]:
    """The cells of constant scales, plain decoding first, by scale."""
    cells = [cell for cell in means["kl"] if cell.startswith("constant")]
    return ["plain", *sorted(cells, key=lambda cell: float(cell.split()[1]))]


def budgets(means: Means) -> list[str]:
    """The cells of KL budgets, the smallest budget first."""
    return sorted(cell for cell in means["kl"] if cell.startswith("KL budget"))


def shuffled_budgets(means: Means) -> list[str]:
    """The cells with the scales of a KL budget in another order."""
    return [cell for cell in (f"shuffled {name}" for name in budgets(means)) if cell in means["kl"]]


def best_constant(selection: Means) -> str:
    """The constant scale with the highest reward on the selection half."""
    return max(constants(selection), key=lambda cell: selection["reward"][cell][0])


def cells_table(means: dict[str, Means], texts: pd.Series) -> str:
    """Means of every cell on both halves. The selection half has not all cells."""
    held_out = means["held_out"]
    rows: list[list[str]] = []
    for cell in [*constants(held_out), *budgets(held_out), *shuffled_budgets(held_out), *OTHERS]:
        selection = means["selection"]["reward"].get(cell)
        row = [cell, str(texts[cell])]
        row.append("–" if selection is None or np.isnan(selection[0]) else with_interval(selection))
        rows.append([*row, *(with_interval(held_out[column][cell]) for column in COLUMNS)])
    header = ["cell", "n", "reward, selection", "reward, held out", *COLUMNS[1:]]
    return markdown_table(header, rows)


def differences_table(held_out: Means, best: str) -> str:
    """The policy minus the best constant scale, its mean as a constant, its scales shuffled, and plain."""
    (mean,) = [cell for cell in constants(held_out) if cell not in _GRID][:1] or [best]
    rows: list[list[str | Floats]] = []
    for cell in dict.fromkeys([best, mean, "shuffled", *budgets(held_out), "plain"]):
        roles = [role for of, role in ((best, "best on selection"), (mean, "its mean")) if of == cell]
        name = f"{cell} ({', '.join(roles)})" if roles else cell
        rows.append(
            [f"policy − {name}", *(held_out[column]["policy"] - held_out[column][cell] for column in COLUMNS)]
        )
    return markdown_table(["difference, held out", *COLUMNS], with_differences(rows))


_GRID = ("plain", "constant 1.5", "constant 2", "constant 3", "constant 4")
"""The cells of the grid; the other constant scale is the policy's mean."""


def moments_table(held_out: Means) -> str:
    """Adaptive scales minus the same scales in another order: does the moment matter?"""
    pairs = {name.removeprefix("shuffled "): name for name in shuffled_budgets(held_out)}
    rows: list[list[str | Floats]] = [
        [f"{cell} − its scales shuffled", *(held_out[c][cell] - held_out[c][other] for c in COLUMNS)]
        for cell, other in {"policy": "shuffled", **pairs}.items()
    ]
    return markdown_table(["difference, held out", *COLUMNS], with_differences(rows))


def divergence_table(held_out: Means) -> str:
    """Adaptive and shuffled scales minus constant scales and budgets with the same divergence."""
    curves = {"constant scales": constants(held_out), "KL budgets": ["plain", *budgets(held_out)]}
    rows: list[list[str | Floats]] = []
    for cell in [*OTHERS, *shuffled_budgets(held_out)]:
        level = np.maximum(held_out["kl"][cell], 0)
        for name, curve in curves.items():
            row: list[str | Floats] = [f"{cell} − {name}", with_interval(level)]
            for metric in ("sentiment", "leakage", "nats", "relevance"):
                reference = at_divergence(along(held_out["kl"], curve), along(held_out[metric], curve), level)
                row.append(held_out[metric][cell] - reference)
            rows.append(row)
    header = ["difference at the same KL, held out", "KL", "sentiment", "leakage", "nats", "relevance"]
    return markdown_table(header, with_differences(rows))


def choices_table(choices: pd.DataFrame) -> str:
    """How often the policy chooses each scale, by position and by divergence of the branches."""
    low, high = choices["divergence"].quantile([1 / 3, 2 / 3])
    parts = {
        "all": choices["step"] >= 0,
        "tokens 1 to 8": choices["step"] < 8,
        "tokens 9 to 16": (choices["step"] >= 8) & (choices["step"] < 16),
        "tokens from 17 on": choices["step"] >= 16,
        f"branches differ by less than {low:.3f} nats": choices["divergence"] < low,
        "between": (choices["divergence"] >= low) & (choices["divergence"] < high),
        f"by {high:.3f} nats and more": choices["divergence"] >= high,
    }
    scales = sorted(choices["scale"].unique())
    rows: list[list[str]] = []
    for name, part in parts.items():
        chosen = choices.loc[part, "scale"]
        shares = [f"{100 * (chosen == scale).mean():.0f} %" for scale in scales]
        rows.append([name, str(len(chosen)), f"{chosen.mean():.2f}", *shares])
    return markdown_table(["tokens, held out", "n", "mean scale", *(f"scale {s:g}" for s in scales)], rows)


def cost_table(notes: dict[str, Any], best: str) -> str:
    """What choosing cost."""
    texts = 0 if best == "plain" else 4
    rows = [
        ["policy", f"{notes['texts']}", f"{notes['tokens']:,}", f"{notes['seconds']:,}"],
        [f"best constant scale ({best})", f"{texts} per prompt of the selection half, and plain", "–", "–"],
    ]
    return markdown_table(["what was chosen", "texts", "new tokens", "seconds, one core in use"], rows)


@in_style
def trade_off(held_out: Means) -> Figure:
    """Sentiment and leakage against the divergence from plain decoding, held-out half."""
    figure = new_figure(PAGE, 2.8)
    panels: Any = figure.subplots(1, 2)
    curves = {
        "constant": constants(held_out),
        "KL budget": ["plain", *budgets(held_out)],
        **{cell: [cell] for cell in OTHERS},
    }
    for axes, metric in zip(panels, ("sentiment", "leakage"), strict=True):
        draw_curves(axes, held_out, metric, curves)
        for colour, cell in zip(COLOURS[2:], OTHERS, strict=False):
            draw_interval(axes, held_out, metric, cell, colour)
        axes.set_xlabel("square root of KL(guided ‖ plain) per token, nats")
        axes.set_ylabel(metric)
        axes.grid(axis="y")
    panels[0].legend(loc="lower right")
    return figure


if __name__ == "__main__":
    main(Record.of_command_line("learned_scale"))
