"""Weights & Biases: one group per study, one run per cell, and one run for the study as a whole."""

from __future__ import annotations

import glob
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from cfg_lab.analysis.frame import SCALE
from cfg_lab.errors import InputError
from cfg_lab.track.images import image_of
from cfg_lab.track.tracker import CellResult, StudyResult

if TYPE_CHECKING:
    import pandas as pd

WandbMode = Literal["auto", "online", "offline"]
TABLE_ROWS = 10_000
"""Largest number of rows of a table in W&B. W&B cuts longer tables without a warning."""


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """Logs to Weights & Biases: one group per study, with one run per cell and a run "overview".

    - The run of a cell (job type "cell") has the cell's config, every metric with interval and n in its
      summary, a table of the texts, and a table of their tokens. The x axis of metrics is the guidance scale.
      W&B therefore shows a curve over the scale if the runs are grouped by another setting.
    - The run "overview" has the table of all cells, their comparisons with unguided decoding, the figures,
      the HTML page, and the cost of decoding.
    - A submission of a sweep to many workers has a run of job type "progress", whose x axis is the time in
      seconds since the submission began.

    The id of a run consists of the study's name and the cell's id. If a cell is logged again, its run is
    updated. Two studies with the same name in one project have the same run "overview".

    Args:
        project: project that the runs go to.
        entity: user or team that the project belongs to. None means the default of your account.
        mode: "online", "offline", or "auto". "auto" is the value of WANDB_MODE if it is set, else "online" if
            there is an API key, else "offline". Offline runs are written to the folder `wandb` in the
            results; `wandb sync` uploads them.
        token_rows: largest number of rows in a cell's table of tokens. A text is in the
            table with all its tokens or not at all. 0 logs no tokens.
    """

    project: str = "cfg_lab"
    entity: str | None = None
    mode: WandbMode = "auto"
    token_rows: int = 5000

    name = "W&B"

    def __post_init__(self) -> None:
        if not self.project:
            raise InputError(f"tracking.project must be the name of a project, got {self.project!r}")
        if self.mode not in get_args(WandbMode):
            raise InputError(
                f"tracking.mode must be one of {', '.join(get_args(WandbMode))}, got {self.mode!r}"
            )
        if not 0 <= self.token_rows <= TABLE_ROWS:
            raise InputError(
                f"tracking.token_rows must be between 0 and {TABLE_ROWS:,}, got {self.token_rows!r}"
            )

    @property
    def destination(self) -> str:
        """Where runs are logged, as text: the mode and the project, such as "offline cfg_lab"."""
        return f"{self._mode} {f'{self.entity}/' if self.entity else ''}{self.project}"

    @property
    def retry_hint(self) -> str:
        settings = {"project": self.project, "entity": self.entity}
        changed = [
            f"tracking.{name}={value}" for name, value in settings.items() if value not in ("cfg_lab", None)
        ]
        return f"{shlex.join(['tracking=wandb', *changed])} (without a network: tracking.mode=offline)"

    def local_path(self, results: Path) -> Path:
        """The folder of the offline runs."""
        return results / "wandb"

    def log_cell(self, result: CellResult) -> Path | None:
        finite = {name: value for name, value in result.summary.items() if math.isfinite(value)}
        scale: Any = result.settings.get(SCALE)
        has_scale = isinstance(scale, int | float)
        config = nested(result.settings)
        with self._run(result.study, result.cell, result.label, "cell", config, result.folder) as run:
            x_axis = {"step_metric": "scale"} if has_scale else {}
            for name in finite:
                without_chart = name.endswith(("_low", "_high", "_n"))
                run.define_metric(name, hidden=without_chart or None, **x_axis)
            run.log(
                {
                    **finite,
                    **({"scale": scale} if has_scale else {}),
                    **tables({"texts": result.texts, "tokens": result.tokens}),
                }
            )
            folder = _offline_folder(run)
        self._remove_replaced(result, folder)
        return folder

    def log_study(self, result: StudyResult) -> Path | None:
        import wandb

        record = dict(result.record)
        with self._run(result.study, "overview", "overview", "overview", record, result.folder) as run:
            run.summary.update(dict(result.costs))
            run.log(
                {
                    **tables({"summary": result.summary, "comparisons": result.comparisons}),
                    **{
                        f"figures/{name}": wandb.Image(image_of(figure))
                        for name, figure in result.figures.items()
                    },
                    **({"page": wandb.Html(str(result.page), inject=False)} if result.page else {}),
                }
            )
            folder = _offline_folder(run)
        self._remove_replaced(result, folder)
        return folder

    def open_progress(self, study: str, submission: str, folder: Path) -> WandbProgress:
        """See `Tracker.open_progress`. Waits at most 30 seconds for the service."""
        end, config = f"progress-{_study_id(submission)}", {"submission": submission}
        run = self._run(study, end, f"progress of {submission}", "progress", config, folder)
        return WandbProgress(run, self.local_path(folder))

    def _run(
        self, study: str, id_end: str, name: str, job_type: str, config: dict[str, Any], folder: Path
    ) -> Any:
        """A new W&B run, or in online mode the earlier run with the same id."""
        import wandb

        mode = self._mode
        return wandb.init(
            project=self.project,
            entity=self.entity,
            group=study,
            job_type=job_type,
            name=name,
            id=f"{_study_id(study)}-{id_end}",
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # does not change a run that the user has open in a notebook
            config=config,
            dir=str(folder),
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                init_timeout=30,
                finish_timeout=60 if job_type == "progress" else 0,  # 0 waits until all is uploaded
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )

    def _remove_replaced(self, result: CellResult | StudyResult, new_folder: Path | None) -> None:
        """Remove the offline run that the new run replaces. `wandb sync` would upload both runs under one id.

        Only an offline run inside this results folder is ever removed, whatever `earlier_folders` says.
        """
        for destination, name in result.earlier_folders.items():
            same_project = _project_of(destination) == _project_of(self.destination)
            if not same_project or not re.fullmatch(r"offline-run-[\w.-]+", name):
                continue
            replaced = self.local_path(result.folder) / name
            is_new = new_folder is not None and new_folder.name == name
            if replaced.is_dir() and not replaced.is_symlink() and not is_new:
                shutil.rmtree(replaced)

    @cached_property
    def _mode(self) -> Any:
        """The mode of new runs, with "auto" replaced: "online" or "offline"."""
        if self.mode != "auto":
            return self.mode
        if mode := os.environ.get("WANDB_MODE"):
            return mode
        import wandb

        return "online" if wandb.login(prompt=False, verify=False) else "offline"


class WandbProgress:
    """The run of the progress of one submission.

    W&B cannot resume an offline run, and `wandb sync` of a second run with the same id may replace the values
    of the first. So all values are also in a file beside the offline runs. A run that W&B did not resume is
    given the values of earlier processes again, and then replaces their offline runs.

    W&B's own steps are not used: it drops values whose step is smaller than an earlier one, such as those of
    another machine with a slower clock.

    Args:
        run: a new W&B run, or one that W&B has resumed.
        offline_runs: the folder of the offline runs.
    """

    def __init__(self, run: Any, offline_runs: Path) -> None:
        self._run = run
        run.define_metric("seconds", hidden=True)
        run.define_metric("*", step_metric="seconds")
        offline_runs.mkdir(parents=True, exist_ok=True)
        self._file = offline_runs / f"{run.id}.jsonl"
        if not run.resumed:
            for values in _values_in(self._file):
                run.log(values)
        new_folder = _offline_folder(run)
        for file in offline_runs.glob(f"offline-run-*/run-{glob.escape(run.id)}.wandb"):
            if file.parent != new_folder and not file.parent.is_symlink():
                shutil.rmtree(file.parent)

    def log(self, values: Mapping[str, float]) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write("\n" + json.dumps(finite))  # begins a line, because the last one may be cut off
        self._run.log(finite)

    def close(self) -> None:
        self._run.finish()


def _values_in(file: Path) -> Iterator[dict[str, float]]:
    """The values of earlier processes. A line that was cut off by the end of a process is left out."""
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                values = json.loads(line)
                if isinstance(values, dict):
                    yield cast("dict[str, float]", values)


def _project_of(destination: str) -> str:
    """The project in a destination. A destination is a mode and a project, such as "offline cfg_lab"."""
    return destination.partition(" ")[2]


def _study_id(study: str) -> str:
    """The study's name as W&B accepts it in ids: no special characters, and short enough for file names."""
    allowed = re.sub(r"[/\\#?%:\s]", "-", study)
    if allowed != study or len(allowed) > 64:  # the hash makes the ids of two such names differ
        allowed = f"{allowed[:48]}-{blake2b(study.encode(), digest_size=4).hexdigest()}"
    return allowed


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings as a tree of mappings. W&B cannot filter by keys with dots in them.

    The option of a group gets the key "option":

    >>> nested({"guidance": "cfg", "guidance.scale": 2})
    {'guidance': {'option': 'cfg', 'scale': 2}}
    """
    tree: dict[str, Any] = {}
    groups = {key.rpartition(".")[0] for key in settings} - {""}
    groups |= {group[:end] for group in groups for end, letter in enumerate(group) if letter == "."}
    for key, value in settings.items():
        *path, last = [*key.split("."), "option"] if key in groups else key.split(".")
        branch = tree
        for name in path:
            branch = branch.setdefault(name, {})
        branch[last] = value
    return tree


def tables(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """The frames as W&B tables. Frames without rows are left out."""
    import wandb

    def table(frame: pd.DataFrame) -> wandb.Table:
        columns = [_of_one_type(frame[name].head(TABLE_ROWS).tolist()) for name in frame.columns]
        rows: Any = [list(row) for row in zip(*columns, strict=True)]
        return wandb.Table(columns=list(frame.columns), data=rows)  # much slower from a frame

    return {name: table(frame) for name, frame in frames.items() if len(frame)}


def _of_one_type(values: list[Any]) -> list[Any]:
    """The values of a column. If the types of the values differ, all become text: W&B refuses mixed types."""
    present = [value for value in values if value is not None and value == value]
    if len({"number" if type(value) in (int, float) else type(value).__name__ for value in present}) < 2:
        return values
    return [None if value is None or value != value else str(value) for value in values]


def _offline_folder(run: Any) -> Path | None:
    """The folder of an offline run. None for an online run, which has no files to upload later."""
    return Path(run.dir).parent if run.offline else None
