"""The record of a study: scores of every text, README's tables and the figures.

`analyse.py` of a study makes the record from the results of the study's sweeps. Where these
results are missing, it reads the scores that are kept in the study's folder. So anybody can compute the
tables again without decoding.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import cfg_lab
from cfg_lab.analysis import comparisons, save, summary
from cfg_lab.analysis.frame import settings_of, varying

EXPERIMENTS = Path(__file__).parent
SIZES = ("smoke", "cpu", "gpu")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Files of one study.

    Attributes:
        folder: the folder that README.md, the scores and the figures are written to.
        results: the folder that holds the results folders of the study's sweeps.
    """

    folder: Path
    results: Path

    @classmethod
    def of_command_line(cls, name: str) -> Record:
        """The record of the study `name`, at the size on the command line (`size=smoke`, `cpu` or `gpu`).

        The record of size cpu is experiments/<name>. Records of other sizes are written to
        results/<size>/<name>/record.
        """
        size = size_of(sys.argv[1:])
        if size == "cpu":
            return cls(folder=EXPERIMENTS / name, results=Path("results"))
        results = Path("results", size)
        folder = results / name / "record"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXPERIMENTS / name / "README.md", folder)
        return cls(folder=folder, results=results)

    def scores(
        self,
        sweep: str,
        metrics: Sequence[str],
        settings: Sequence[str] = (),
        *,
        prompt_texts: bool = True,
    ) -> pd.DataFrame:
        """The results of a sweep, one row per text, with the columns that the analysis needs.

        If the results folder of the sweep exists, its scores are also written to <sweep>.parquet in the
        record. Otherwise this file is read.

        Args:
            sweep: the name of the sweep, which is also the name of its results folder.
            metrics: the metrics to keep.
            settings: settings to keep besides those that vary between cells.
            prompt_texts: False writes the ids of the prompts in the place of their texts, for data whose
                licence does not allow copies.
        """
        file = self.folder / f"{sweep}.parquet"
        if not (self.results / sweep).is_dir():
            return pd.read_parquet(file)
        results = pd.DataFrame(cfg_lab.load_results(self.results / sweep))
        kept = {*varying(results), "guidance.scale", "negatives", *settings}
        columns = ["cell", *(name for name in settings_of(results) if name in kept)]
        columns += ["prompt_id", "prompt", "sample", "negative_ids", *metrics]
        slim = results[columns]
        if not prompt_texts:
            slim = slim.assign(prompt=slim["prompt_id"])
        slim.to_parquet(file, compression="zstd", index=False)
        return pd.read_parquet(file)  # the same types as when only the file is there

    def table(self, key: str, markdown: str) -> None:
        """Write a table into README.md, between `<!-- table KEY -->` and `<!-- end -->`."""
        readme = self.folder / "README.md"
        start, end = f"<!-- table {key} -->", "<!-- end -->"
        text = readme.read_text(encoding="utf-8")
        if start not in text:
            raise SystemExit(f"{readme} has no line {start}")
        pattern = re.escape(start) + r".*?" + re.escape(end)
        replacement = f"{start}\n{markdown.strip()}\n{end}"
        text = re.sub(pattern, lambda _: replacement, text, count=1, flags=re.DOTALL)
        readme.write_text(text, encoding="utf-8")

    def figure(self, key: str, figure: Figure) -> None:
        """Save a figure as <key>.png."""
        save(figure, self.folder / key, formats=("png",))


def size_of(arguments: Sequence[str]) -> str:
    """The size that command-line arguments name, cpu if they name none.

    Raises:
        SystemExit: an argument is not a size.
    """
    size = "cpu"
    for argument in arguments:
        key, _, size = argument.partition("=")
        if key != "size" or size not in SIZES:
            raise SystemExit(
                f"error: {argument!r} is not one of {', '.join(f'size={name}' for name in SIZES)}"
            )
    return size


def means_table(scores: pd.DataFrame, metrics: Sequence[str], settings: Sequence[str]) -> str:
    """A Markdown table of means: one row per cell, with n texts and 95 % intervals over prompts.

    Args:
        scores: one row per text, as from `Record.scores`.
        metrics: the metrics to show, one column each.
        settings: the settings that name a row.
    """
    table = summary(scores, metrics, settings)
    rows: list[list[str]] = []
    for row in table.to_dict("records"):
        means = [number_and_interval(row[m], row[f"{m}_low"], row[f"{m}_high"]) for m in metrics]
        rows.append([*(_setting(row[name]) for name in settings), str(row["texts"]), *means])
    return markdown_table([*(name.removeprefix("guidance.") for name in settings), "n", *metrics], rows)


def differences_table(
    scores: pd.DataFrame,
    metrics: Sequence[str],
    settings: Sequence[str],
    baseline: str | dict[str, object] | None = None,
) -> str:
    """A Markdown table of paired differences from the baseline, with 95 % intervals over prompts.

    A difference in bold is significant (5 %) after Holm's correction over all differences of the table.

    Args:
        scores, metrics, settings: as in `means_table`.
        baseline: as in `cfg_lab.analysis.comparisons`; by default the unguided cell.
    """
    table = comparisons(scores, metrics, baseline)
    rows: list[list[str]] = []
    for _, cell in table.groupby("cell", sort=False):
        by_metric = {row["metric"]: row for row in cell.to_dict("records")}
        first = by_metric[metrics[0]]
        differences: list[str] = []
        for metric in metrics:
            row = by_metric[metric]
            text = number_and_interval(row["difference"], row["low"], row["high"], sign=True)
            differences.append(f"**{text}**" if row["p_holm"] < 0.05 else text)
        rows.append([*(_setting(first[name]) for name in settings), str(int(first["n"])), *differences])
    return markdown_table([*(name.removeprefix("guidance.") for name in settings), "n", *metrics], rows)


def number_and_interval(mean: float, low: float, high: float, *, sign: bool = False) -> str:
    """A number with its interval, such as "+0.12 [0.021, 0.22]"; a dash for NaN."""
    if mean != mean:
        return "–"
    return f"{_digits(mean, '+' if sign else '')} [{_digits(low)}, {_digits(high)}]"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _digits(number: float, sign: str = "") -> str:
    """A number with two significant digits, three from 10 on, and with a real minus sign."""
    if number != number:
        return "–"
    size = abs(number)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 3
    return f"{number:{sign}.{places}f}".replace("-", "−")


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
