"""Tables of the study: how near students are to guidance, and what their texts are like."""

from __future__ import annotations

import json

import pandas as pd

from cfg_lab.analysis.stats import mean_interval
from experiments.record import Record, differences_table, markdown_table, means_table, number_and_interval

STUDENTS = {"one_pass_gft": "gft", "one_pass_distil": "distil"}
METRICS = (
    "relevance",
    "sentiment",
    "entropy",
    "evaluator_bits_per_byte",
    "evaluator_perplexity",
    "distinct_1",
    "length",
    "gflop",
)


def main(record: Record) -> None:
    record.table("divergence", divergence_table(record))
    record.table("cost", cost_table(record))
    scores = record.scores("one_pass", METRICS, ["model", "model.path", "model.scale", "prompts.system"])
    # The name of a decoding stands in for all its settings.
    names = [_name(row) for row in scores.to_dict("records")]
    scores = scores[["cell", "prompt_id", "prompt", "sample", "negative_ids", *METRICS]].assign(model=names)
    record.table("means", means_table(scores, METRICS, ["model"]))
    record.table("differences", differences_table(scores, METRICS, ["model"], {"model": "plain"}))


def divergence_table(record: Record) -> str:
    """How far guidance is from base and student on held-out prompts, and the share that is left."""
    rows: list[list[str]] = []
    for folder, student in STUDENTS.items():
        check = _kept(record, folder)
        for (scale, texts), group in check.groupby(["scale", "texts"], sort=False):
            prompts = group["prompt"].tolist()
            estimates = [mean_interval(group[name].tolist(), prompts) for name in ("kl_base", "kl_student")]
            left = group["kl_student"].mean() / group["kl_base"].mean()
            shown = [number_and_interval(e.mean, e.low, e.high) for e in estimates]
            rows.append([student, f"{scale:g}", str(texts), str(len(group)), *shown, f"{left:.2f}"])
    header = ["student", "scale", "texts", "n", "KL(guided‖base)", "KL(guided‖student)", "share left"]
    return markdown_table(header, rows)


def cost_table(record: Record) -> str:
    """What was sampled for the training of each student, and the time that it took."""
    rows: list[list[str]] = []
    for folder, student in STUDENTS.items():
        file = record.results / folder / "cost.json"
        kept = record.folder / f"{folder}_cost.json"
        if file.is_file():
            kept.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        cost = json.loads(kept.read_text(encoding="utf-8"))
        rows.append([student, f"{cost['texts']:,}", f"{cost['tokens']:,}", f"{cost['seconds'] / 60:.0f}"])
    return markdown_table(["student", "texts", "tokens", "minutes"], rows)


def _kept(record: Record, folder: str) -> pd.DataFrame:
    """The check of a student, which is also kept in the record."""
    kept = record.folder / f"{folder}.parquet"
    file = record.results / folder / "check.parquet"
    if file.is_file():
        pd.read_parquet(file).to_parquet(kept, compression="zstd", index=False)
    return pd.read_parquet(kept)


def _name(row: dict[str, object]) -> str:
    """The decoding of a text in words."""
    if row["model"] == "student":
        student = "gft" if "one_pass_gft" in str(row["model.path"]) else "distil"
        return f"student {student} at {row['model.scale']:g}"
    if row["prompts.system"] is not None and row["prompts.system"] == row["prompts.system"]:
        return "prompt only"
    return "plain" if row["guidance.scale"] == 1 else f"guidance at {row['guidance.scale']:g}"


if __name__ == "__main__":
    main(Record.of_command_line("one_pass"))
