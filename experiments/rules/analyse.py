"""Tables and figure of the study `rules`: run `python -m experiments.rules.analyse` after the sweeps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

import cfg_lab
from cfg_lab.analysis.stats.clustered_means import Floats
from experiments.curves import (
    along,
    at_divergence,
    divergence_at,
    divergence_table,
    resampled_means,
    with_differences,
    with_interval,
)
from experiments.record import Record, markdown_table
from experiments.rules.figure import trade_off

METRICS = (
    "sentiment",
    "leakage",
    "perplexity",
    "relevance",
    "guided_log_prob",
    "kl_from_plain",
    "length",
    "gflop",
)
RULES = {
    "cfg": ("plain", "cfg 2", "cfg 4"),
    "rescale": ("plain", "rescale 2", "rescale 4"),
    "apg": ("plain", "apg 2", "apg 4"),
    "zero_star": ("plain", "zero_star 2", "zero_star 4"),
    "union": ("plain", "union 2", "union 4"),
    "self_debias": ("plain", "self_debias 2", "self_debias 4"),
    "plausible": ("min-p 0.1", "plausible 2", "plausible 4"),
    "contrastive": ("min-p 0.1", "contrastive 2", "contrastive 4"),
}
"""Cells of each rule's curve. Rules that truncate begin at unguided decoding with the same truncation."""
BASELINES = (
    "plain",
    "instruction",
    "temperature 0.7",
    "min-p 0.1",
    "temperature 0.7, min-p 0.1",
    "better of 2 plain texts",
    "better of 2 texts with instruction",
)
LEVELS = (0.05, 0.15, 0.4)
"""Divergences from plain decoding at which rules are compared, nats per token."""

Means = dict[str, dict[str, Floats]]


def main(record: Record) -> None:
    """Make all tables and the figure of the record."""
    scores = record.scores("rules", METRICS)
    measure(record)
    samplers = pd.read_parquet(record.folder / "samplers.parquet")
    scores = with_methods(scores, samplers)
    means = resampled_means(scores, ("sentiment", "leakage", "nats", "relevance", "entropy", "kl", "gflop"))
    texts = scores.groupby("cell").size()
    record.table("scales", scales_table(means, texts))
    record.table("divergence", divergence_table(means, RULES, "cfg", LEVELS, "rule"))
    record.table("attribute", attribute_table(means))
    record.table("truncation", truncation_table(means))
    record.table("baselines", baselines_table(means, texts))
    record.table("entropy", entropy_table(means))
    record.table("identity", identity_table(pd.read_parquet(record.folder / "contrastive.parquet")))
    record.figure("trade_off", trade_off(means, RULES, BASELINES[:6]))


def measure(record: Record) -> None:
    """Write samplers.parquet and contrastive.parquet, if there are results. This needs the model."""
    if (record.results / "rules").is_dir():
        from experiments.rules import strengths

        results = pd.DataFrame(cfg_lab.load_results(record.results / "rules"))
        strengths.of_samplers(results).to_parquet(record.folder / "samplers.parquet", index=False)
        strengths.of_contrastive_formula(results).to_parquet(
            record.folder / "contrastive.parquet", index=False
        )


def with_methods(scores: pd.DataFrame, samplers: pd.DataFrame) -> pd.DataFrame:
    """The scores with one cell per method, also those that choose between two texts, and more columns.

    nats: mean negative log-prob per token under plain decoding, the logarithm of `perplexity`.
    entropy, kl: of the distribution that tokens are drawn from, nats per token. Guided cells have the
    estimates of the trace. Unguided cells have exact numbers of the first text of each prompt.
    """
    scores = scores.assign(
        cell=scores.apply(method, axis=1),
        nats=np.log(scores["perplexity"]),
        entropy=-scores["guided_log_prob"],
        kl=scores["kl_from_plain"],
    )
    keys = ["temperature", "min_p", "prompt_id"]
    temperature, min_p = scores["sampling.temperature"], scores["sampling.min_p"]
    exact = scores.assign(temperature=temperature, min_p=min_p)[keys].merge(samplers, "left", keys)
    first, unguided = scores["sample"] == 0, scores["guidance.scale"] == 1
    for column in ("entropy", "kl"):
        values = exact[column].set_axis(scores.index).where(first)
        scores[column] = scores[column].where(~unguided, values)
    with_instruction = scores["guidance.scale"] == 0
    # The positive branch of these cells only serves the measurement of the divergence.
    scores.loc[with_instruction, "gflop"] /= 2
    chosen = [
        better_of_two(scores, "plain", "better of 2 plain texts"),
        better_of_two(scores, "instruction", "better of 2 texts with instruction"),
    ]
    return pd.concat([scores, *chosen], ignore_index=True)


def method(text: pd.Series) -> str:
    """The name of a text's cell in tables."""
    temperature, min_p = text["sampling.temperature"], text["sampling.min_p"]
    sampler = [f"temperature {temperature:g}"] * (temperature != 1) + [f"min-p {min_p:g}"] * (min_p != 0)
    scale = text["guidance.scale"]
    if scale == 1:
        return ", ".join(sampler) or "plain"
    return ", ".join(["instruction" if scale == 0 else f"{text['guidance']} {scale:g}", *sampler])


def better_of_two(scores: pd.DataFrame, cell: str, name: str) -> pd.DataFrame:
    """Of the first two texts of each prompt of a cell, the one with more sentiment, as a cell of its own.

    A choice between n texts moves the distribution of whole texts by at most log n - (n - 1) / n nats.
    """
    texts = scores[(scores["cell"] == cell) & (scores["sample"] < 2)]
    rows = texts.fillna({"sentiment": -1.0}).groupby("prompt_id")["sentiment"].idxmax()
    total = texts.groupby("prompt_id")["gflop"].sum()
    chosen = texts.loc[rows]
    return chosen.assign(
        cell=name,
        sample=0,
        gflop=total.loc[chosen["prompt_id"]].to_numpy(),
        kl=(math.log(2) - 0.5) / chosen["length"].clip(lower=1) if cell == "plain" else math.nan,
        entropy=math.nan,
    )


def scales_table(means: Means, texts: pd.Series) -> str:
    """Means of every guided cell."""
    cells = ["plain", *dict.fromkeys(cell for curve in RULES.values() for cell in curve[1:])]
    columns = ("kl", "sentiment", "leakage", "nats", "entropy", "relevance")
    rows = [
        [cell, str(texts[cell]), *(with_interval(means[metric][cell]) for metric in columns)]
        for cell in cells
    ]
    return markdown_table(["rule and scale", "n", "KL", *columns[1:]], rows)


def attribute_table(means: Means) -> str:
    """What each rule needs to be as good as cfg halfway: divergence, and nats at this divergence.

    Halfway is the middle between plain decoding and the best mean of cfg.
    """
    header = ["rule"]
    columns: list[tuple[str, int, float]] = []
    for metric, sign in (("sentiment", 1), ("leakage", -1)):
        values = sign * along(means[metric], RULES["cfg"])
        level = float(values[0, 0] + values[0].max()) / 2
        header += [f"KL at {metric} {sign * level:.3f}", "nats there", "reached in"]
        columns.append((metric, sign, level))
    rows: list[list[str]] = []
    for rule, cells in RULES.items():
        divergences, nats = along(means["kl"], cells), along(means["nats"], cells)
        row = [rule]
        for metric, sign, level in columns:
            needed = divergence_at(divergences, sign * along(means[metric], cells), level)
            reached = np.isfinite(needed[1:]).mean()
            row += [with_interval(needed), with_interval(at_divergence(divergences, nats, needed))]
            row.append(f"{100 * reached:.0f} %")
        rows.append(row)
    return markdown_table(header, rows)


def truncation_table(means: Means) -> str:
    """What guidance adds with and without the plausibility mask."""
    rows: list[list[str | Floats]] = []
    for scale in (2, 4):
        pairs = ((f"cfg {scale}", "plain"), (f"plausible {scale}", "min-p 0.1"))
        for cell, baseline in pairs:
            rows.append([f"{cell} − {baseline}", *_differences(means, cell, baseline)])
        rows.append(
            [f"plausible {scale} − cfg {scale}", *_differences(means, *(cell for cell, _ in pairs[::-1]))]
        )
    return markdown_table(["difference", "sentiment", "leakage", "nats"], with_differences(rows))


def _differences(means: Means, cell: str, baseline: str) -> list[Floats]:
    return [means[metric][cell] - means[metric][baseline] for metric in ("sentiment", "leakage", "nats")]


def baselines_table(means: Means, texts: pd.Series) -> str:
    """The cheap methods beside cfg: means, computation, and differences from plain decoding and from cfg."""
    rows: list[list[str | Floats]] = []
    for cell in (*BASELINES, "cfg 2", "cfg 4"):
        compute = means["gflop"][cell] / means["gflop"]["plain"]
        row: list[str | Floats] = [
            cell,
            str(texts[cell]),
            f"{compute[0]:.2f}",
            with_interval(means["kl"][cell]),
        ]
        row += ["–"] * 3 if cell == "plain" else _differences(means, cell, "plain")
        row += ["–"] * 2 if cell == "cfg 2" else _differences(means, cell, "cfg 2")[:2]
        rows.append(row)
    header = ["method", "n", "GFLOP ÷ plain", "KL", "Δ sentiment", "Δ leakage", "Δ nats"]
    return markdown_table([*header, "sentiment − cfg 2", "leakage − cfg 2"], with_differences(rows))


def entropy_table(means: Means) -> str:
    """cfg minus a lower temperature that gives the same entropy."""
    rows: list[list[str | Floats]] = []
    curve = ("temperature 0.7", "plain")  # from low to high entropy
    entropies = along(means["entropy"], curve)
    for cell in ("cfg 2", "cfg 4"):
        level = means["entropy"][cell]
        share = (level - entropies[:, 0]) / (entropies[:, 1] - entropies[:, 0])
        share = np.where((share >= 0) & (share <= 1), share, np.nan)
        row: list[str | Floats] = [cell, with_interval(level)]
        for metric in ("sentiment", "leakage", "nats"):
            low, high = along(means[metric], curve).T
            row.append(means[metric][cell] - (low + share * (high - low)))
        rows.append([*row, f"{100 * np.isfinite(share[1:]).mean():.0f} %"])
    header = ["cell", "entropy", "Δ sentiment", "Δ leakage", "Δ nats", "resamples inside the curve"]
    return markdown_table(header, with_differences(rows))


def identity_table(numbers: pd.DataFrame) -> str:
    """Entropy and divergence of cfg at scale 2 and of the contrastive formula with c = 0.5."""
    common = numbers[["prompt_id"]].assign(prompt=numbers["prompt_id"], sample=0)
    parts = [
        common.assign(cell=cell, entropy=numbers[f"entropy_{suffix}"], kl=numbers.get(f"kl_{suffix}", 0.0))
        for cell, suffix in (("plain", "plain"), ("cfg", "cfg"), ("contrastive", "contrastive"))
    ]
    means = resampled_means(pd.concat(parts, ignore_index=True), ("entropy", "kl"))
    labels = {"plain": "ℓp", "cfg": "ℓn + 2 (ℓp − ℓn)", "contrastive": "ℓp − 0.5 ℓn"}
    difference = {"contrastive": f"{numbers['difference'].max():.1e}"}
    rows = [
        [label, str(len(numbers)), *(with_interval(means[m][cell]) for m in ("entropy", "kl")),
         difference.get(cell, "–")]
        for cell, label in labels.items()
    ]  # fmt: skip
    header = ["distribution", "n", "entropy", "KL", "largest difference in probability from cfg / 2"]
    return markdown_table(header, rows)


if __name__ == "__main__":
    main(Record.of_command_line("rules"))
