"""Tables and the figure of the study: `python -m experiments.automatic_negatives.analyse`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import cfg_lab
from cfg_lab.analysis.stats import Difference, holm, mean_interval, paired_difference
from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.style import COLOURS, PAGE, in_style, new_figure
from experiments.curves import resampled_means, with_differences, with_interval
from experiments.record import Record, markdown_table, number_and_interval

NAME = "automatic_negatives"
METRICS = ("sentiment", "kl_from_plain")
HALVES = ("selection", "held_out")
LEVEL = 0.1
"""The divergence at which methods are compared in the second table, nats per token."""

FOUND, PLAIN, RANDOM = "found", "plain", "random"

Values = Mapping[str, Floats]
"""Method -> the value of each text. Entry i of all methods has the same prompt and noise."""


def main(record: Record) -> None:
    """Make all tables and the figure of the record."""
    choice = load_choice(record)
    scores = {half: load_scores(record, choice, half) for half in HALVES}
    record.table("methods", methods_table(scores))
    record.table("divergence", divergence_table(scores["held_out"]))
    record.table("candidates", candidates_table(choice))
    record.table("sets", sets_table(choice))
    record.table("cost", cost_table(choice))
    record.figure(NAME, draw(scores))


def load_choice(record: Record) -> dict[str, Any]:
    """The content of choice.json; it is also kept in the record."""
    source, kept = record.results / NAME / "choice.json", record.folder / "choice.json"
    if source.is_file():
        shutil.copy(source, kept)
    return json.loads(kept.read_text(encoding="utf-8"))


def load_scores(record: Record, choice: Mapping[str, Any], half: str) -> pd.DataFrame:
    """The scores of one half, one row per text, with the method of the text; they are kept in the record."""
    folder = record.results / NAME / ("selection" if half == "selection" else "")
    file = record.folder / f"{half}.parquet"
    if folder.is_dir():
        cells: dict[str, str] = choice["cells"][half]
        results = pd.DataFrame(
            cfg_lab.load_results(folder, columns=METRICS, cells=list(dict.fromkeys(cells.values())))
        )
        parts = [
            results.loc[
                results["cell"] == cell,
                ["prompt_id", "prompt", "sample", "guidance.scale", "negatives.phrases", *METRICS],
            ].assign(method=method)
            for method, cell in cells.items()
        ]
        pd.concat(parts).to_parquet(file, compression="zstd", index=False)
    return pd.read_parquet(file)


def values_of(scores: pd.DataFrame, metric: str) -> tuple[dict[str, Floats], list[str]]:
    """A metric by method, and the prompt of each text. The random draws are also there as their mean."""
    table = scores.pivot(index=["prompt_id", "prompt", "sample"], columns="method", values=metric)
    values = {str(name): np.asarray(table[name], np.float64) for name in dict.fromkeys(scores["method"])}
    draws = [of for name, of in values.items() if name.startswith(f"{RANDOM} ")]
    if draws:
        values[RANDOM] = np.mean(draws, axis=0)
    return values, [str(prompt) for prompt in table.index.get_level_values("prompt")]


def difference(values: Values, name: str, baseline: str, prompts: Sequence[str]) -> Difference:
    """A paired difference of two methods."""
    return paired_difference(values[name].tolist(), values[baseline].tolist(), prompts)


def _shown(method: str) -> str:
    """The name of a method in tables: one for all random draws."""
    return RANDOM if method.startswith(f"{RANDOM} ") else method


def methods_of(scores: pd.DataFrame) -> list[str]:
    """The methods of the tables, the random draws as one."""
    return list(dict.fromkeys(map(_shown, scores["method"])))


def methods_table(scores: Mapping[str, pd.DataFrame]) -> str:
    """All methods on both halves. In bold: significant after Holm's correction over the column."""
    held_out = scores["held_out"]
    names = methods_of(held_out)
    chosen, chosen_prompts = values_of(scores["selection"], "sentiment")
    rewards, prompts = values_of(held_out, "sentiment")
    divergences, _ = values_of(held_out, "kl_from_plain")
    columns = [
        _column([(chosen, name, PLAIN, chosen_prompts) for name in names]),
        _column([(rewards, name, PLAIN, prompts) for name in names]),
        _column([(rewards, FOUND, name, prompts) for name in names]),
    ]
    rows: list[list[str]] = []
    for number, name in enumerate(names):
        of_method = held_out[held_out["method"].map(_shown) == name]
        scales = of_method.groupby("method")["guidance.scale"].first()
        phrases = of_method["negatives.phrases"].dropna().unique()
        estimates = [mean_interval(of[name].tolist(), prompts) for of in (divergences, rewards)]
        rows.append(
            [
                name,
                "; ".join(map(str, phrases)),
                ", ".join(f"{scale:.3g}" for scale in dict.fromkeys(scales)),
                *(number_and_interval(e.mean, e.low, e.high) for e in estimates),
                *(column[number] for column in columns),
            ]
        )
    counts = f"n = {len(set(chosen_prompts))}", f"n = {len(set(prompts))}"
    header = ["method", "phrases", "scale", "KL", "sentiment"]
    header += [f"Δ choice, {counts[0]}", f"Δ held out, {counts[1]}", "found − method, held out"]
    return markdown_table(header, rows)


def _column(pairs: Sequence[tuple[Values, str, str, Sequence[str]]]) -> list[str]:
    """Differences as text, in bold where they are significant after correction over all of them."""
    differences = [
        None if name == baseline else difference(values, name, baseline, prompts)
        for values, name, baseline, prompts in pairs
    ]
    corrected = iter(holm([d.p for d in differences if d is not None]))
    texts: list[str] = []
    for found in differences:
        if found is None:
            texts.append("–")
            continue
        text = number_and_interval(found.mean, found.low, found.high, sign=True)
        texts.append(f"**{text}**" if next(corrected) < 0.05 else text)
    return texts


def divergence_table(held_out: pd.DataFrame) -> str:
    """The changes on held-out prompts as they would be at the same divergence.

    A change is taken to be linear in the square root of the divergence, as for small pushes. So it is
    multiplied by the square root of LEVEL / divergence.
    """
    means = resampled_means(held_out.assign(cell=held_out["method"].map(_shown)), METRICS)
    rewards, divergences = means["sentiment"], means["kl_from_plain"]
    changes = {
        name: (rewards[name] - rewards[PLAIN]) * np.sqrt(LEVEL / np.maximum(divergences[name], 1e-3))
        for name in methods_of(held_out)
        if name != PLAIN
    }
    rows: list[list[str | Floats]] = [
        [name, with_interval(change), "–" if name == FOUND else changes[FOUND] - change]
        for name, change in changes.items()
    ]
    return markdown_table(["method", "Δ sentiment", "found − method"], with_differences(rows))


def candidates_table(choice: Mapping[str, Any]) -> str:
    """The candidates in the order of the ranking, with the sampled rewards of those that were sampled."""
    rounds: list[dict[str, Any]] = choice["rounds"]
    header = ["rank", "candidate", "from", "scale", "KL", "gain, 1e-3 nats per token"]
    header += [f"sentiment, {of['prompts']} prompts" for of in rounds]
    rows = [
        [
            str(number),
            candidate["phrase"],
            ", ".join(candidate["origins"]),
            f"{candidate['scale']:.3g}",
            f"{candidate['divergence']:.2f}",
            f"{1000 * candidate['gain']:+.1f}".replace("-", "−"),
            *(
                f"{of['means'][candidate['phrase']]:.3f}" if candidate["phrase"] in of["means"] else ""
                for of in rounds
            ),
        ]
        for number, candidate in enumerate(choice["candidates"], 1)
    ]
    table = markdown_table(header, rows)
    if rounds:
        means = rounds[0]["means"]
        gains = [c["gain"] for c in choice["candidates"] if c["phrase"] in means]
        rewards = [means[c["phrase"]] for c in choice["candidates"] if c["phrase"] in means]
        rho = float(spearmanr(gains, rewards).statistic) if len(gains) > 2 else float("nan")
        text = f"{rho:.2f}".replace("-", "−")
        table += f"\n\nRank correlation of gain and reward in the first round: {text} (n = {len(gains)})."
    return table


def sets_table(choice: Mapping[str, Any]) -> str:
    """The sets of survivors, the best first."""
    rows = [[of["phrases"], f"{of['change']:+.3f}".replace("-", "−")] for of in choice["sets"]]
    return markdown_table(["set, with weights", "Δ sentiment over plain, on the prompts of the choice"], rows)


def cost_table(choice: Mapping[str, Any]) -> str:
    """What choosing cost."""
    cost: dict[str, float] = choice["cost"]
    rows = [
        ["sampled", f"{cost['sampled_texts']:,} texts", f"{cost['sampled_tokens']:,}"],
        ["read by teacher forcing", f"{cost['readings']:,} texts", f"{cost['read_tokens']:,}"],
    ]
    return markdown_table(["step", "", "tokens"], rows)


@in_style
def draw(scores: Mapping[str, pd.DataFrame]) -> Figure:
    """Differences from plain decoding on the prompts of the choice and on held-out prompts."""
    names = [name for name in methods_of(scores["held_out"]) if name != PLAIN]
    figure = new_figure(PAGE, 2.8)
    axes: Any = figure.subplots()
    for offset, (half, colour) in enumerate(zip(HALVES, COLOURS, strict=False)):
        values, prompts = values_of(scores[half], "sentiment")
        found = [difference(values, name, PLAIN, prompts) for name in names]
        heights = np.arange(len(names)) + 0.2 * (offset - 0.5)
        means = np.array([d.mean for d in found])
        ends = np.array([[d.mean - d.low for d in found], [d.high - d.mean for d in found]])
        label = "prompts of the choice" if half == "selection" else "held-out prompts"
        label += f", n = {len(set(prompts))}"
        axes.errorbar(means, heights, xerr=ends, fmt="o", color=colour, label=label)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("sentiment − that of plain decoding, 95 % intervals")
    axes.legend()
    return figure


if __name__ == "__main__":
    main(Record.of_command_line(NAME))
