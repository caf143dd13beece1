"""Tables and figure of the study `distribution`: run `python -m experiments.distribution.analyse`.

It reads the numbers about every token that `experiments.distribution.measure` has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cfg_lab.analysis.style import COLOURS, DASHES, PAGE, in_style, new_figure
from experiments.curves import resampled_means, with_interval
from experiments.record import Record, markdown_table, means_table

PAPER = {"entropy": 5.4, "entropy_guided": 4.7, "overlap": 0.5}
"""Sanchez et al. 2023, section 5: scale 1.5, the negative is the last token of the prompt."""
POSITIONS = ((0, 4), (4, 8), (8, 16), (16, 32))
"""Parts of a text: first token, and first token after the part."""
AGREEMENT, IN_A_ROW = 0.05, 4
"""Guidance stops early if KL(positive || negative) is below this many nats at so many tokens in a row."""


def main(record: Record) -> None:
    """Make all tables and the figure of the record."""
    branches = pd.read_parquet(record.folder / "branches.parquet")
    guided = pd.read_parquet(record.folder / "guided.parquet")
    guided["entropy_change"] = guided["entropy_guided"] - guided["entropy"]
    guided["rank_shift"] = np.log2(guided["rank_guided"] / guided["rank_plain"])
    record.table("published", published_table(guided))
    record.table("branches", branches_table(branches))
    record.table("guided", guided_table(guided))
    record.table("positions", positions_table(branches))
    record.table("stopping", stopping_table(branches))
    record.figure("positions", positions_figure(branches, guided))


def by_text(tokens: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Means over the tokens of each text: one row per text, in the form of a study's scores."""
    means = tokens.groupby([*settings, "prompt_id"], sort=False).mean(numeric_only=True).reset_index()
    cells = means[list(settings)].astype(str).agg(" ".join, axis=1)
    return means.assign(cell=cells, prompt=means["prompt_id"], sample=0)


def published_table(guided: pd.DataFrame) -> str:
    """The three numbers of the paper beside ours, at scale 1.5."""
    texts = by_text(guided[guided["scale"] == 1.5], ("model", "negative"))
    means = resampled_means(texts, ("entropy", "entropy_guided", "entropy_change", "overlap", "kept"))
    entropy, after = PAPER["entropy"], PAPER["entropy_guided"]
    rows = [["Sanchez et al.", "last_token", "–", f"{entropy}", f"{after}", f"−{entropy - after:.1f}",
             f"−{100 * (1 - after / entropy):.0f} %", "about 0.5"]]  # fmt: skip
    for cell, group in texts.groupby("cell", sort=False):
        first = group.iloc[0]
        share = 100 * (means["entropy_guided"][cell] / means["entropy"][cell] - 1)
        columns = [means[metric][cell] for metric in ("entropy", "entropy_guided")]
        rows.append([
            first["model"], first["negative"], str(len(group)),
            *map(with_interval, columns),
            with_interval(means["entropy_change"][cell]),
            f"{share[0]:+.0f} %".replace("-", "−"),
            with_interval(means["overlap"][cell]),
        ])  # fmt: skip
    header = [
        "model",
        "negative",
        "n",
        "entropy, plain",
        "entropy, guided",
        "difference",
        "",
        "overlap of nuclei",
    ]
    return markdown_table(header, rows)


def branches_table(branches: pd.DataFrame) -> str:
    """How far apart the branches are: Rényi divergences of the positive from the negative branch."""
    renamed = branches.rename(
        columns={
            "renyi_half": "D½",
            "kl": "D₁ = KL",
            "renyi_2": "D₂",
            "renyi_3": "D₃",
            "same_top": "same top token",
        }
    )
    columns = ("entropy", "entropy_negative", "D½", "D₁ = KL", "D₂", "D₃", "jsd", "same top token")
    return means_table(by_text(renamed, ("model", "negative")), columns, ("model", "negative"))


def guided_table(guided: pd.DataFrame) -> str:
    """What guidance changes at each scale."""
    renamed = guided.assign(scale=guided["scale"].map("{:g}".format)).rename(
        columns={
            "kl": "KL(guided ‖ plain)",
            "entropy_change": "entropy change",
            "nucleus_plain": "size of plain nucleus",
            "nucleus_guided": "of guided nucleus",
            "same_top": "same top token",
            "rank_shift": "rank shift, log2",
        }
    )
    columns = (
        "entropy change", "KL(guided ‖ plain)", "overlap", "kept",
        "size of plain nucleus", "of guided nucleus", "same top token", "rank shift, log2",
    )  # fmt: skip
    settings = ("model", "negative", "scale")
    return means_table(by_text(renamed, settings), columns, settings)


def positions_table(branches: pd.DataFrame) -> str:
    """KL between the branches, and agreement about the likeliest token, in parts of the texts."""
    rows: list[list[str]] = []
    for (model, negative), tokens in branches.groupby(["model", "negative"], sort=False):
        for first, end in POSITIONS:
            part = tokens[tokens["position"].between(first, end - 1)]
            if part.empty:
                continue
            texts = by_text(part, ("model",))
            means = resampled_means(texts, ("kl", "same_top"))
            numbers = [with_interval(means[metric][str(model)]) for metric in ("kl", "same_top")]
            rows.append([str(model), str(negative), f"{first + 1}–{end}", str(len(texts)), *numbers])
    return markdown_table(
        ["model", "negative", "tokens", "n", "KL(positive ‖ negative)", "same top token"], rows
    )


def stopping_table(branches: pd.DataFrame) -> str:
    """How often the branches agree at one token, and in how many texts guidance would stop."""
    keys = ["model", "negative", "prompt_id"]
    agree = branches.assign(agree=(branches["kl"] < AGREEMENT).astype(float))
    in_a_row = (
        agree.groupby(keys, sort=False)["agree"].rolling(IN_A_ROW).sum().groupby(keys, sort=False).max()
    )
    stops = (in_a_row == IN_A_ROW).astype(float).rename("texts that stop").reset_index()
    texts = by_text(agree, ("model", "negative")).merge(stops, on=keys)
    texts = texts.rename(columns={"agree": "tokens that agree"})
    return means_table(texts, ("tokens that agree", "texts that stop"), ("model", "negative"))


@in_style
def positions_figure(branches: pd.DataFrame, guided: pd.DataFrame) -> Figure:
    """Entropy, overlap of nuclei and divergence of the branches along the texts, one row per model."""
    models = list(dict.fromkeys(branches["model"]))
    negatives = list(dict.fromkeys(branches["negative"]))
    figure = new_figure(PAGE, 0.3 + 1.75 * len(models))
    panels = figure.subplots(len(models), 3, squeeze=False, sharex=True, sharey="col")
    at_paper_scale = guided[guided["scale"] == 1.5]
    for row, model in enumerate(models):
        entropy, overlap, divergence = panels[row]
        plain = at_paper_scale[
            (at_paper_scale["model"] == model) & (at_paper_scale["negative"] == negatives[0])
        ]
        _curve(entropy, plain, "entropy", 3, "without guidance")
        for number, negative in enumerate(negatives):
            of_guided = at_paper_scale[
                (at_paper_scale["model"] == model) & (at_paper_scale["negative"] == negative)
            ]
            of_branches = branches[(branches["model"] == model) & (branches["negative"] == negative)]
            _curve(entropy, of_guided, "entropy_guided", number, negative)
            _curve(overlap, of_guided, "overlap", number, negative)
            _curve(divergence, of_branches, "kl", number, negative)
        entropy.set_ylabel(f"{model}\nentropy, nats")
        overlap.set_ylabel("overlap of top-p 0.9 sets")
        overlap.set_ylim(0, 1)
        divergence.set_ylabel("KL(positive ‖ negative), nats")
        divergence.set_yscale("log")
        for axes in panels[row]:
            axes.grid(axis="y")
    for axes in panels[-1]:
        axes.set_xlabel("new token")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


def _curve(axes: Any, tokens: pd.DataFrame, column: str, number: int, label: str) -> None:
    """The mean over texts at each position, with a band of two standard errors."""
    at_position = tokens.groupby("position")[column]
    mean, error = at_position.mean(), at_position.sem().fillna(0)
    x = mean.index + 1
    axes.plot(x, mean, color=COLOURS[number], dashes=DASHES[number % len(DASHES)], label=label)
    low = mean - 2 * error
    if column == "kl":  # an axis of logarithms has no 0
        low = low.clip(lower=1e-3)
    axes.fill_between(x, low, mean + 2 * error, color=COLOURS[number], alpha=0.15, linewidth=0)


if __name__ == "__main__":
    main(Record.of_command_line("distribution"))
