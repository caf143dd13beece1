"""Tables and figure of the study `best_of_n`: `python -m experiments.best_of_n.analyse` after the sweeps."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cfg_lab
from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.style import COLOURS, MARKERS, PAGE, in_style, new_figure
from cfg_lab.metrics.diversity import Diversity
from cfg_lab.metrics.text import Text
from cfg_lab.prompts import Prompt
from experiments.curves import interval, resampled_means, with_differences, with_interval
from experiments.record import Record, markdown_table

METRICS = ("sentiment", "leakage", "perplexity", "kl_from_plain", "relevance", "length", "gflop")
COLUMNS = ("sentiment", "judge", "leakage", "nats", "other_nats", "relevance", "distinct_2")
NAMES = {"other_nats": "nats, other model", "judge": "judge, nats", "distinct_2": "distinct 2-grams"}
CELLS = {
    "plain": ("plain", 1),
    "best of 2 plain": ("plain", 2),
    "best of 4 plain": ("plain", 4),
    "guided": ("guided", 1),
    "best of 2 guided": ("guided", 2),
}
"""Name -> the cell of the sweep and the number of texts of a prompt to choose from."""
PAIRS = (
    ("best of 2 plain", "plain"),
    ("best of 4 plain", "plain"),
    ("guided", "plain"),
    ("best of 2 guided", "plain"),
    ("guided", "best of 2 plain"),
    ("best of 2 guided", "best of 4 plain"),
)
"""The differences in the table. The last two are between equal computations."""

Means = dict[str, dict[str, Floats]]


def main(record: Record) -> None:
    """Make all tables and the figure of the record."""
    scores = record.scores("best_of_n", METRICS)
    measure(record, scores)
    judged = pd.read_parquet(record.folder / "judged.parquet")
    texts = scores.assign(
        method=np.where(scores["guidance.scale"] == 1, "plain", "guided"), nats=np.log(scores["perplexity"])
    ).merge(judged, "left", ["guidance.scale", "prompt_id", "sample"])
    chosen = pd.concat([best_of(texts, name) for name in CELLS], ignore_index=True)
    means = resampled_means(chosen, (*COLUMNS, "gflop"))
    record.table("cells", cells_table(means, chosen.groupby("cell").size()))
    record.table("differences", differences_table(means))
    record.table("judge", judge_table(json.loads((record.folder / "card.json").read_text())))
    record.figure("trade_off", trade_off(means))


def measure(record: Record, scores: pd.DataFrame) -> None:
    """Write judged.parquet, if there are results: what another model says of each text."""
    folder = record.results / "best_of_n"
    if not folder.is_dir():
        return
    from experiments.best_of_n.judge import CARD, log_odds, mean_log_probs

    results = pd.DataFrame(cfg_lab.load_results(folder)).drop_duplicates(
        ["guidance.scale", "prompt_id", "sample"]
    )
    assert len(results) == len(scores)
    texts = results["text"].tolist()
    (record.folder / "card.json").write_text(CARD.read_text(encoding="utf-8"), encoding="utf-8")
    results[["guidance.scale", "prompt_id", "sample"]].assign(
        judge=log_odds(texts),
        other_nats=[-nats for nats in mean_log_probs(results["prompt"].tolist(), texts)],
        distinct_2=distinct_2(texts),
    ).to_parquet(record.folder / "judged.parquet", compression="zstd", index=False)


def distinct_2(texts: list[str]) -> list[float]:
    """The share of different pairs of words in each text."""
    prompt = Prompt(id="", text="")
    inputs = [
        Text(id="", prompt=prompt, text=text, tokens=(), log_probs=(), finish_reason="length")
        for text in texts
    ]
    return list(Diversity().score(inputs)["distinct_2"])


def best_of(texts: pd.DataFrame, name: str) -> pd.DataFrame:
    """Of the first n texts of each prompt, the one with most sentiment, as a cell of its own.

    If n is 1, all texts of the cell are kept: each of them could have been the only one.
    """
    method, count = CELLS[name]
    of_method = texts[texts["method"] == method]
    if count == 1:
        return of_method.assign(cell=name)
    first = of_method[of_method["sample"] < count]
    rows = first.fillna({"sentiment": -1.0}).groupby("prompt_id")["sentiment"].idxmax()
    total = first.groupby("prompt_id")["gflop"].sum()
    chosen = first.loc[rows]
    return chosen.assign(cell=name, sample=0, gflop=total.loc[chosen["prompt_id"]].to_numpy())


def cells_table(means: Means, texts: pd.Series) -> str:
    """Means of every method, with its computation as a multiple of a plain text's."""
    rows = [
        [
            cell,
            str(texts[cell]),
            f"{(means['gflop'][cell] / means['gflop']['plain'])[0]:.2f}",
            *(with_interval(means[column][cell]) for column in COLUMNS),
        ]
        for cell in CELLS
    ]
    return markdown_table(["method", "n", "GFLOP ÷ plain", *_header()], rows)


def differences_table(means: Means) -> str:
    """Differences between methods."""
    rows: list[list[str | Floats]] = [
        [f"{cell} − {baseline}", *(means[column][cell] - means[column][baseline] for column in COLUMNS)]
        for cell, baseline in PAIRS
    ]
    return markdown_table(["difference", *_header()], with_differences(rows))


def _header() -> list[str]:
    return [NAMES.get(column, column) for column in COLUMNS]


def judge_table(card: dict[str, Any]) -> str:
    """How well the judge and the reward tell beginnings of positive reviews from those of negative ones."""
    rows = [[name, str(card["n"]), _auc(card[name])] for name in ("judge", "sentiment")]
    return markdown_table(["beginnings of film reviews", "n", "AUC"], rows)


def _auc(numbers: list[float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*numbers)


@in_style
def trade_off(means: Means) -> Figure:
    """The reward and the judge against computation."""
    figure = new_figure(PAGE, 2.6)
    panels: Any = figure.subplots(1, 2)
    curves = {kind: [name for name in CELLS if CELLS[name][0] == kind] for kind in ("plain", "guided")}
    for axes, metric in zip(panels, ("sentiment", "judge"), strict=True):
        for number, (name, cells) in enumerate(curves.items()):
            points = [interval(means[metric][cell]) for cell in cells]
            x = [(means["gflop"][cell] / means["gflop"]["plain"])[0] for cell in cells]
            axes.errorbar(
                x,
                [middle for middle, _, _ in points],
                yerr=np.array([[middle - low, high - middle] for middle, low, high in points]).T,
                label=f"best of n {name}",
                color=COLOURS[number],
                marker=MARKERS[number],
            )
        axes.set_xlabel("computation ÷ a plain text")
        axes.set_ylabel(NAMES.get(metric, metric))
        axes.grid(axis="y")
    panels[0].legend()
    return figure


if __name__ == "__main__":
    main(Record.of_command_line("best_of_n"))
