"""TensorBoard: one run per cell, one per curve over the guidance scale, and one for the study as a whole."""

from __future__ import annotations

import glob
import importlib.util
import math
import os
import re
import shlex
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from cfg_lab import analysis
from cfg_lab.analysis.frame import SCALE, settings_by_cell
from cfg_lab.errors import InputError
from cfg_lab.track.images import image_of
from cfg_lab.track.tracker import CellResult, StudyResult

STEPS_PER_SCALE = 1000
"""Steps per unit of the guidance scale. TensorBoard's x axis has whole steps, so scale 1.5 is step 1500."""

STATISTICS = {"mean": "", "low": "_low", "high": "_high", "n": "_n"}
"""Statistic -> ending of the summary's column.

A metric m has four charts: "mean/m", the interval's ends "low/m" and "high/m", and "n/m" (number of texts).
"""

EVENT_FILES = "events.out.tfevents.*"


@dataclass(frozen=True, kw_only=True)
class TensorBoardTracker:
    """Logs to TensorBoard; needs the package tensorboard. Names in brackets are tabs of TensorBoard.

    - The run of a cell has every metric with interval and n (Time series), its settings beside its metrics
      (HParams), and its first texts with their scores (Text).
    - The run "overview" has the figures (Images), the tables of cells and comparisons, the command, versions
      and machine (Text), and the cost of decoding (Time series).
    - A submission of a sweep to many workers has a run below "progress", with one chart for each number over
      the seconds since it began (Time series). Each process that follows the submission adds an event file.
    - Below "overview" there is one run per curve. A curve consists of the cells that differ in guidance.scale
      alone. The step of each cell on the curve is 1000 times the scale. The tab Custom scalars shows the
      curves with their intervals.

    Logging a cell or a study again replaces its event files, so that nothing is shown twice.

    Args:
        log_dir: folder in which each study gets a folder of runs, so that TensorBoard can compare studies.
            None means the folder `tensorboard` in the results.
        texts: number of texts of each cell to show, counted from the first; 0 shows none. A changed number
            applies to cells that are logged afterwards.
    """

    log_dir: str | None = None
    texts: int = 50

    name = "TensorBoard"
    token_rows = 0

    def __post_init__(self) -> None:
        if self.log_dir is not None and (not isinstance(self.log_dir, str) or not self.log_dir):
            raise InputError(
                f"tracking.log_dir must be a folder, or null for the results, got {self.log_dir!r}"
            )
        if not isinstance(self.texts, int) or isinstance(self.texts, bool) or self.texts < 0:
            raise InputError(f"tracking.texts must be a whole number, 0 for no texts, got {self.texts!r}")
        if importlib.util.find_spec("tensorboard") is None:
            raise InputError(
                "tracking=tensorboard needs the package tensorboard; "
                "install it with: pip install cfg_lab[tensorboard]"
            )

    @property
    def destination(self) -> str:
        """ "TensorBoard"; if `log_dir` is set, followed by the absolute path of `log_dir`."""
        return self.name if self.log_dir is None else f"{self.name} {self._log_dir(self.log_dir)}"

    @property
    def retry_hint(self) -> str:
        if self.log_dir is None:
            return "tracking=tensorboard"
        quoted = self.log_dir.replace("\\", "\\\\").replace("'", "\\'")  # as Hydra's grammar has it
        return shlex.join(["tracking=tensorboard", f"tracking.log_dir='{quoted}'"])

    def local_path(self, results: Path) -> Path:
        """The folder to give to `tensorboard --logdir`."""
        return results / "tensorboard" if self.log_dir is None else self._log_dir(self.log_dir)

    def log_cell(self, result: CellResult) -> Path:
        parent = self._study_folder(result)
        folder = parent / f"{_allowed_in_names(result.label)[:80]} {result.cell}"
        earlier = parent.glob(f"*{glob.escape(result.cell)}")  # labels change when a study grows
        scale = result.settings.get(SCALE)
        with _run(folder, earlier) as run:
            settings = {key: _hyperparameter(value) for key, value in result.settings.items()}
            _, begin, end = _hparams(settings, {})
            run.file_writer.add_summary(begin)
            run.file_writer.add_summary(end)
            _add_metrics(run, result.summary, _metrics_of(result.summary), scale)
            for _, text in result.texts.head(self.texts).iterrows():
                run.add_text(f"texts/{text['prompt_id']}", _text_with_scores(text), int(text["sample"]))
        return folder

    def log_study(self, result: StudyResult) -> Path:
        folder = self._study_folder(result) / "overview"
        metrics = _metrics_of(map(str, result.summary.columns))
        with _run(folder, [folder]) as run:
            columns, _, _ = _hparams(
                _hyperparameters(result.summary), {f"mean/{name}": 0 for name in metrics}
            )
            run.file_writer.add_summary(columns)
            bands = {
                name: ["Margin", [f"{end}/{name}" for end in ("mean", "low", "high")]] for name in metrics
            }
            run.add_custom_scalars({"metrics over 1000 × guidance scale": bands})
            run.add_text("record", _markdown_table(["", ""], result.record.items()))
            for title, frame in {"summary": result.summary, "comparisons": result.comparisons}.items():
                if len(frame):
                    run.add_text(title, _markdown_table(list(frame.columns), frame.to_numpy().tolist()))
            for cost, value in result.costs.items():
                run.add_scalar(f"cost/{cost}", value, 0)
            for title, figure in result.figures.items():
                pixels = np.asarray(image_of(figure).convert("RGB"))  # [height, width, 3]
                run.add_image(f"figures/{title}", pixels, 0, dataformats="HWC")
            for title, cells in curves(result.summary).items():
                with _writer(folder / _folder_name(title)) as curve:
                    for cell in cast("list[dict[str, Any]]", cells.to_dict("records")):
                        _add_metrics(curve, cell, metrics, cell[SCALE])
        return folder

    def open_progress(self, study: str, submission: str, folder: Path) -> TensorBoardProgress:
        runs = self._folder_of(study, folder)
        return TensorBoardProgress(_writer(runs / "progress" / _folder_name(submission)))

    def _study_folder(self, result: CellResult | StudyResult) -> Path:
        """The folder that holds the runs of the study."""
        return self._folder_of(result.study, result.folder)

    def _folder_of(self, study: str, results: Path) -> Path:
        folder = self.local_path(results)
        return folder if self.log_dir is None else folder / _folder_name(study)

    @staticmethod
    def _log_dir(path: str) -> Path:
        return Path(os.path.expanduser(path)).resolve()  # does not change an unknown ~user


@dataclass(frozen=True)
class TensorBoardProgress:
    """The run of the progress of one submission. The step is the number of seconds since it began."""

    writer: Any

    def log(self, values: Mapping[str, float]) -> None:
        step = round(values["seconds"])
        for name, value in values.items():
            if name != "seconds" and math.isfinite(value):
                self.writer.add_scalar(f"progress/{name}", value, step)
        self.writer.flush()  # so that TensorBoard shows it at once

    def close(self) -> None:
        self.writer.close()


def curves(summary: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Label of a curve -> cells of the curve, sorted by scale. The cells differ in the guidance scale alone.

    A group of cells with a single scale is not a curve and is left out.
    """
    if SCALE not in summary:
        return {}
    cells = summary[summary[SCALE].notna()]
    settings = [name for name in analysis.varying(summary) if name != SCALE]
    labels = [
        ", ".join(f"{name} {cell[name]}" for name in settings) or "all cells"
        for cell in cells.to_dict("records")
    ]
    return {
        str(label): curve.sort_values(SCALE)
        for label, curve in cells.groupby(pd.Series(labels, cells.index, dtype=str), sort=False)
        if curve[SCALE].nunique() > 1
    }


@contextmanager
def _run(folder: Path, earlier: Iterable[Path]) -> Generator[Any]:
    """A writer of the event files of one run, for a `with` block.

    When the new files are written, the older event files in the folders `earlier` are removed.
    """
    replaced = [path for old_folder in earlier for path in old_folder.rglob(EVENT_FILES)]
    with _writer(folder) as writer:
        yield writer
    for path in replaced:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # the folder of a run under another label is now empty
            path.parent.rmdir()


def _writer(folder: Path) -> Any:
    """A writer of one event file, which closes at the end of a `with` block."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def _add_metrics(run: Any, summary: Mapping[str, Any], metrics: Iterable[str], scale: Any) -> None:
    """Log every statistic of every metric.

    The step stands for the guidance scale. It is 0 for rules without a scale.
    """
    step = round(STEPS_PER_SCALE * scale) if isinstance(scale, int | float) and math.isfinite(scale) else 0
    for metric in metrics:
        for statistic, ending in STATISTICS.items():
            value = summary[f"{metric}{ending}"]
            if value is not None and math.isfinite(value):
                run.add_scalar(f"{statistic}/{metric}", value, step)


def _metrics_of(columns: Iterable[str]) -> list[str]:
    """Names of a summary's metrics: a metric m has the columns m, m_low, m_high and m_n."""
    names = dict.fromkeys(columns)
    return [name for name in names if all(f"{name}{ending}" in names for ending in STATISTICS.values())]


def _hparams(settings: Mapping[str, Any], metrics: Mapping[str, float]) -> tuple[Any, Any, Any]:
    """Three records for TensorBoard's tab HParams: the table's columns, start and end of a run."""
    from torch.utils.tensorboard import summary

    untyped: Any = summary
    return untyped.hparams(dict(settings), dict(metrics))


def _hyperparameters(summary: pd.DataFrame) -> dict[str, Any]:
    """Setting -> one of its values, as an example.

    If there are several cells, only the settings that differ between cells are included.
    """
    names = analysis.varying(summary) if len(summary) > 1 else None
    examples: dict[str, Any] = {}
    for settings in settings_by_cell(summary).values():
        for name, value in settings.items():
            if value is not None and (names is None or name in names):
                examples.setdefault(name, _hyperparameter(value))
    return examples


def _hyperparameter(value: Any) -> Any:
    """A setting as TensorBoard accepts it: a number, a boolean, or text."""
    return value if isinstance(value, bool | int | float | str) else str(value)


def _text_with_scores(text: pd.Series[Any]) -> str:
    """One text in Markdown: its prompt as a quotation, the text verbatim, and its scores."""
    prompt = "\n".join(f"> {line}" for line in str(text["prompt"]).splitlines())
    verbatim = "\n".join(f"    {line}" for line in str(text["text"]).splitlines())
    scores = text.drop(["prompt_id", "prompt", "sample", "text", "finish_reason"])
    listed = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if value == value)
    return f"{prompt}\n\n{verbatim}\n\n{listed}"


def _markdown_table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown. Numbers are rounded to four digits."""

    def line(values: Iterable[Any]) -> str:
        texts = [re.sub(r"\s*\n\s*", " ", _in_words(value)).replace("|", r"\|") for value in values]
        return f"| {' | '.join(texts)} |"

    columns = list(columns)
    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def _in_words(value: Any) -> str:
    """A value as text: a number rounded to four digits, a mapping as a list of its entries."""
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value).items()
        return ", ".join(f"{key} {_in_words(entry)}" for key, entry in entries)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _folder_name(title: str) -> str:
    """The title as the name of a folder. Different titles give different names."""
    allowed = _allowed_in_names(title)[:100].lstrip(".")
    if allowed == title:
        return title
    return f"{allowed}-{blake2b(title.encode(), digest_size=4).hexdigest()}"


def _allowed_in_names(title: str) -> str:
    """The title with a dash for every character that some file system does not allow."""
    return re.sub(r"[^\w ,.=+-]", "-", title)
