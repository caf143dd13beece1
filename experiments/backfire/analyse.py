"""Tables and figure of the study: toxicity after words in the prompt, and under guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cfg_lab.analysis import PAGE, comparisons, summary
from cfg_lab.analysis.frame import distinct_prompts, unguided_cells
from cfg_lab.analysis.stats import holm
from cfg_lab.analysis.style import COLOURS, FAINT, INK, MARKERS, in_style, new_figure
from experiments.record import Record, markdown_table, number_and_interval

METRICS = ("toxicity", "bits_per_byte", "copied", "distinct_2", "length")
MODELS = {"smollm2": "instruction model (SmolLM2-135M)", "gemma3-270m": "base model (Gemma 3 270M)"}
WORDS = {
    "Do not be toxic": "instruction",
    "does not perpetuate": "negated prefix",
    "The following text perpetuates": "toxic prefix",
}
"""A part of the text before the prompt -> its name in tables. A cell without such a text has "none"."""

UNGUIDED = "off"
GUIDANCE = (UNGUIDED, "default", "bare", "empty", "preadd", "self_debias")
"""What the tables call the guidance: the negative of the instruction model, the rule of the base model."""


def main(record: Record) -> None:
    scores = cells_of_the_study(record.scores("backfire", METRICS, prompt_texts=False))
    tests = all_comparisons(scores)
    record.table("means", means_table(scores))
    record.table("words", differences_table(tests[tests["guidance"] == UNGUIDED], ["toxicity", "distinct_2"]))
    record.table(
        "guidance",
        differences_table(
            tests[tests["guidance"] != UNGUIDED], ["toxicity", "bits_per_byte", "copied", "distinct_2"]
        ),
    )
    record.table("bare", bare_against_empty(scores))
    record.figure("toxicity", toxicity_by_cell(scores))


def cells_of_the_study(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores with the columns `words` and `guidance`, and each unguided cell once.

    The texts before the prompt differ between cells. So the id of a prompt, which is the same in all cells,
    takes the place of its text: texts that continue the same sentence are compared.
    """
    words = scores["prompts.template"].map(words_of)
    unguided = scores["cell"].isin(unguided_cells(scores))
    negative = scores["negatives.template"].where(scores["negatives"] != "empty", "empty")
    guidance = scores["guidance"].where(scores["model"] != "smollm2", negative)
    scores = scores.assign(
        words=words, guidance=guidance.where(~unguided, UNGUIDED), prompt=scores["prompt_id"]
    )
    first_cells = scores.groupby(["model", "words", "guidance"], sort=False)["cell"].first()
    return scores[scores["cell"].isin(set(first_cells))].reset_index(drop=True)


def words_of(template: str) -> str:
    """The name of the text that a template of prompts has before the prompt."""
    return next((name for part, name in WORDS.items() if part in template), "none")


def all_comparisons(scores: pd.DataFrame) -> pd.DataFrame:
    """Differences of every cell.

    Unguided cells with words are compared with the unguided cell without words. Guided cells are compared
    with the unguided cell with the same words. p values of each metric are corrected by Holm's method over
    all these comparisons.
    """
    tables: list[pd.DataFrame] = []
    keys = scores.drop_duplicates("cell").set_index("cell")[["model", "words", "guidance"]]

    def compare(part: pd.DataFrame, words: str) -> None:
        baseline = part[(part["guidance"] == UNGUIDED) & (part["words"] == words)]["cell"].iloc[0]
        differences = comparisons(part, METRICS, str(baseline))
        tables.append(
            differences[["cell", "metric", "difference", "low", "high", "n", "p"]].join(keys, on="cell")
        )

    for _, of_model in scores.groupby("model", sort=False):
        compare(of_model[of_model["guidance"] == UNGUIDED], "none")
        for words, part in of_model.groupby("words", sort=False):
            compare(part, str(words))
    table = pd.concat(tables, ignore_index=True)
    for _, rows in table.groupby("metric"):
        table.loc[rows.index, "p_holm"] = holm(rows["p"].tolist())
    return table


def means_table(scores: pd.DataFrame) -> str:
    """A Markdown table of means: one row per cell."""
    table = summary(scores, METRICS, ["model", "words", "guidance"])
    rows: list[list[str]] = []
    for row in in_order(table).to_dict("records"):
        means = [number_and_interval(row[m], row[f"{m}_low"], row[f"{m}_high"]) for m in METRICS]
        rows.append([MODELS[row["model"]], row["words"], row["guidance"], str(row["texts"]), *means])
    return markdown_table(["model", "words", "guidance", "n", *METRICS], rows)


def bare_against_empty(scores: pd.DataFrame) -> str:
    """A Markdown table of differences between the bare phrases and the empty prompt as negatives."""
    pair = scores[(scores["words"] == "none") & scores["guidance"].isin(["bare", "empty"])]
    empty = str(pair[pair["guidance"] == "empty"]["cell"].iloc[0])
    metrics = ["toxicity", "copied", "bits_per_byte"]
    tests = comparisons(pair, metrics, empty).to_dict("records")
    return markdown_table(["n", *metrics], [[str(int(tests[0]["n"])), *map(difference_text, tests)]])


def differences_table(tests: pd.DataFrame, metrics: list[str]) -> str:
    """A Markdown table of differences: one row per cell. Significant differences are bold."""
    rows: list[list[str]] = []
    for _, cell in in_order(tests).groupby(["model", "words", "guidance"], sort=False):
        by_metric = {row["metric"]: row for row in cell.to_dict("records")}
        first = by_metric[metrics[0]]
        names = [MODELS[first["model"]], first["words"], first["guidance"], str(int(first["n"]))]
        rows.append([*names, *(difference_text(by_metric[metric]) for metric in metrics)])
    return markdown_table(["model", "words", "guidance", "n", *metrics], rows)


def difference_text(row: Mapping[Any, Any]) -> str:
    """A difference with its interval, in bold if it is significant after correction."""
    text = number_and_interval(row["difference"], row["low"], row["high"], sign=True)
    return f"**{text}**" if row["p_holm"] < 0.05 else text


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of the models, the words and the guidance of the study."""
    orders = {"model": [*MODELS], "words": ["none", *WORDS.values()], "guidance": [*GUIDANCE]}
    return table.sort_values(
        [*orders], key=lambda column: column.map(orders[str(column.name)].index), kind="stable"
    )


@in_style
def toxicity_by_cell(scores: pd.DataFrame) -> Figure:
    """Mean toxicity of every cell with its 95 % interval: one panel per model."""
    figure = new_figure(PAGE, 2.5)
    panels: Any = figure.subplots(1, 2, sharey=True)
    means = summary(scores, ["toxicity"], ["model", "words", "guidance"])
    groups = ["none", *WORDS.values()]
    for axes, (model, title) in zip(panels, MODELS.items(), strict=True):
        of_model = means[means["model"] == model]
        present = [name for name in GUIDANCE if name in set(of_model["guidance"])]
        for number, guidance in enumerate(present):
            cells = of_model[of_model["guidance"] == guidance]
            x = [groups.index(words) + 0.2 * (number - (len(present) - 1) / 2) for words in cells["words"]]
            y = cells["toxicity"]
            bars = [y - cells["toxicity_low"], cells["toxicity_high"] - y]
            colour, marker = (
                (FAINT, "o")
                if guidance == UNGUIDED
                else (COLOURS[GUIDANCE.index(guidance) - 1], MARKERS[number])
            )
            axes.errorbar(
                x, y, bars, color=colour, marker=marker, linestyle="none", elinewidth=1, label=guidance
            )
        plain = of_model[(of_model["words"] == "none") & (of_model["guidance"] == UNGUIDED)]["toxicity"]
        axes.axhline(float(plain.iloc[0]), color=FAINT, linewidth=0.6, dashes=(2, 2), zorder=0)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_title(title, loc="left", color=INK, fontweight="bold")
        axes.set_xlabel("words before the prompt")
        axes.grid(axis="y")
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.legend(title="guidance at scale 2", loc="lower left", ncols=4)
    panels[0].set_ylabel("toxicity (lower is better)")
    panels[0].set_ylim(bottom=0)
    note = f"means of {len(set(distinct_prompts(scores)))} prompts, 95 % intervals"
    figure.text(0.995, 0.993, note, fontsize=5.5, color=FAINT, ha="right", va="top")
    return figure


if __name__ == "__main__":
    main(Record.of_command_line("backfire"))
