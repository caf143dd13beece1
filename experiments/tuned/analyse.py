"""Tables and figure of the study `tuned`: `python -m experiments.tuned.analyse`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cfg_lab
from cfg_lab import Decoder, Request
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

METRICS = ("sentiment", "evaluator_perplexity", "relevance", "distinct_2", "self_bleu", "length")
COLUMNS = ("sentiment", "judge", "other_nats", "relevance", "self_bleu", "distinct_2", "length")
NAMES = {"judge": "judge, nats", "other_nats": "nats, other model", "distinct_2": "distinct 2-grams"}
BETA = 0.1
"""The coefficient of the training whose model is guided."""
BETAS = (0.05, 0.4)
SCALES = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3)
KEYS = ["model.adapter", "guidance.scale", "prompt_id", "sample"]

Means = dict[str, dict[str, Floats]]


def main(record: Record) -> None:
    """Make all tables and the figure of the record."""
    scores = record.scores("tuned", METRICS, ("model.adapter",))
    scores["model.adapter"] = scores["model.adapter"].map(coefficient)
    measure(record, scores)
    texts = scores.merge(pd.read_parquet(record.folder / "judged.parquet"), "left", KEYS)
    texts = texts.assign(
        cell=[
            at_scale(scale) if beta == BETA else trained(beta)
            for beta, scale in zip(texts["model.adapter"], texts["guidance.scale"], strict=True)
        ],
        other_nats=np.log(texts["evaluator_perplexity"]),
    )
    means = resampled_means(texts, (*COLUMNS, "kl"))
    record.table("cells", cells_table(means, texts.groupby("cell").size()))
    record.table("differences", differences_table(means))
    record.table("same_kl", same_divergence_table(means))
    record.table("formula", formula_table(means))
    record.table("training", training_table(record))
    record.figure("trade_off", trade_off(means))


def coefficient(adapter: str) -> float:
    """The coefficient that an adapter was trained with, which is a part of its folder's name."""
    match = re.search(r"tuned_([0-9.]+)", adapter)
    assert match is not None, adapter
    return float(match[1])


def at_scale(scale: float) -> str:
    """The name of the cell of a scale."""
    names = {0.0: "base", 1.0: trained(BETA)}
    return names.get(float(scale), f"γ = {scale:g}")


def trained(beta: float) -> str:
    """The name of the cell of a model that was trained with a coefficient."""
    return f"trained with {beta:g}"


CURVE = [at_scale(scale) for scale in SCALES]


def measure(record: Record, scores: pd.DataFrame) -> None:
    """Write judged.parquet and steps.parquet, if there are results.

    judged.parquet has the judge's log-odds of each text and its mean log-ratio to the base, which is an
    unbiased estimate of KL(decoded || base) per token. steps.parquet has the numbers of each training step.
    """
    folder = record.results / "tuned"
    if not folder.is_dir():
        return
    from experiments.best_of_n.judge import log_odds

    results = pd.DataFrame(cfg_lab.load_results(folder))
    results["model.adapter"] = results["model.adapter"].map(coefficient)
    results = results.drop_duplicates(KEYS)
    assert len(results) == len(scores)
    results[KEYS].assign(
        judge=log_odds(results["text"].tolist()),
        kl=results["guided_log_prob"] - base_log_probs(results),
    ).to_parquet(record.folder / "judged.parquet", compression="zstd", index=False)
    steps = [
        pd.read_parquet(record.results / f"tuned_{beta:g}" / "steps.parquet").assign(beta=beta)
        for beta in (BETA, *BETAS)
    ]
    pd.concat(steps).to_parquet(record.folder / "steps.parquet", compression="zstd", index=False)


def base_log_probs(results: pd.DataFrame) -> Floats:
    """The mean log-prob of each text's tokens under the base, in nats, without the stop token; [texts]."""
    (name,) = results["model.name"].unique()
    model = cfg_lab.load_model(name)
    texts = [
        [token for token in tokens if token not in model.stop_ids] for tokens in results["tokens"].tolist()
    ]
    requests = [Request(positive=model.encode(prompt)) for prompt in results["prompt"]]
    sums = [score.positive for score in Decoder(model).score(requests, texts, [])]
    return np.array([total / max(1, len(text)) for total, text in zip(sums, texts, strict=True)])


def cells_table(means: Means, texts: pd.Series) -> str:
    """Means of every cell, the curve of scales first."""
    cells = [*CURVE, *map(trained, BETAS)]
    rows = [
        [cell, str(texts[cell]), *(with_interval(means[column][cell]) for column in ("kl", *COLUMNS))]
        for cell in cells
    ]
    return markdown_table(["cell", "n", "KL from base", *_header()], rows)


def differences_table(means: Means) -> str:
    """Some cells minus the base."""
    cells = [*map(at_scale, (1, 2, 3)), *map(trained, BETAS)]
    rows: list[list[str | Floats]] = [
        [f"{cell} − base", *(means[column][cell] - means[column]["base"] for column in COLUMNS)]
        for cell in cells
    ]
    return markdown_table(["difference", *_header()], with_differences(rows))


def same_divergence_table(means: Means) -> str:
    """Models of other coefficients minus the curve of scales at the same divergence from the base."""
    rows: list[list[str | Floats]] = []
    for cell in map(trained, BETAS):
        level = np.maximum(means["kl"][cell], 0)
        row: list[str | Floats] = [f"{cell} − curve of γ", with_interval(level)]
        for column in COLUMNS:
            curve = at_divergence(along(means["kl"], CURVE), along(means[column], CURVE), level)
            row.append(means[column][cell] - curve)
        rows.append(row)
    return markdown_table(["difference at the same KL", "KL from base", *_header()], with_differences(rows))


def formula_table(means: Means) -> str:
    """What γ = β₀/β gives beside what the training with β gave."""
    rows: list[list[str | Floats]] = []
    for beta in BETAS:
        guided, model = at_scale(BETA / beta), trained(beta)
        rows.append(
            [
                f"{guided} − {model}",
                with_interval(means["kl"][guided]),
                with_interval(means["kl"][model]),
                *(means[column][guided] - means[column][model] for column in ("kl", "sentiment", "judge")),
            ]
        )
    header = ["γ = β₀/β", "KL of γ", "KL of the training", "KL", "sentiment", "judge, nats"]
    return markdown_table(header, with_differences(rows))


def training_table(record: Record) -> str:
    """Reward and divergence in training: means over the first and the last fifth of the steps."""
    steps = pd.read_parquet(record.folder / "steps.parquet")
    rows: list[list[str]] = []
    for beta, run in steps.groupby("beta"):
        fifth = max(1, len(run) // 5)
        first, last = run.head(fifth), run.tail(fifth)
        numbers = [part[name].mean() for name in ("reward", "kl", "entropy") for part in (first, last)]
        rows.append([f"{beta:g}", str(len(run)), *(f"{number:.3g}" for number in numbers)])
    header = ["β", "steps"]
    header += [f"{name}, {part}" for name in ("reward", "KL", "entropy") for part in ("first", "last")]
    return markdown_table(header, rows)


def _header() -> list[str]:
    return [NAMES.get(column, column) for column in COLUMNS]


@in_style
def trade_off(means: Means) -> Figure:
    """The reward and the judge against the divergence from the base."""
    figure = new_figure(PAGE, 2.8)
    panels: Any = figure.subplots(1, 2)
    curves = {f"γ, model of β = {BETA:g}": CURVE, **{f"β = {beta:g}": [trained(beta)] for beta in BETAS}}
    for axes, metric in zip(panels, ("sentiment", "judge"), strict=True):
        draw_curves(axes, means, metric, curves)
        for colour, cells in zip(COLOURS, curves.values(), strict=False):
            for cell in cells:
                draw_interval(axes, means, metric, cell, colour)
        axes.set_xlabel("square root of KL(decoded ‖ base) per token, nats")
        axes.set_ylabel(NAMES.get(metric, metric))
        axes.grid(axis="y")
    panels[0].legend()
    return figure


if __name__ == "__main__":
    main(Record.of_command_line("tuned"))
