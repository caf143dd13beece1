"""Weights & Biases: a group a study, a run a cell, and one more run that sums them up."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from cfg_lab.errors import InputError
from cfg_lab.track.tracker import CellResult, StudyResult

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

WandbMode = Literal["auto", "online", "offline"]
SCALE = "guidance.scale"
TABLE_ROWS = 10_000
"""W&B cuts a longer table without a word."""


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """One W&B group a study; in it a run a cell (job type "cell") and a run "overview".

    A cell's run has its config, every metric with n and interval in its summary, and tables of its texts and
    of what guidance did to their tokens. Metrics are defined over the guidance scale: runs grouped by another
    setting give curves. The overview has the table of all cells, their comparisons with unguided decoding,
    the figures, the page, and what decoding took.

    A run's id is derived from study and cell, so logging a cell again updates its run, and studies of one
    name in one project share an overview.

    Args:
        project, entity: where runs go; entity None is your default one.
        mode: "online" or "offline"; "auto" is WANDB_MODE where it is set, else online where there is an
            API key. Offline runs lie in the results' folder `wandb` and go up with `wandb sync`.
        token_rows: of a cell's table of tokens at most, whole texts; 0 leaves it out.
    """

    project: str = "cfg_lab"
    entity: str | None = None
    mode: WandbMode = "auto"
    token_rows: int = 5000

    def __post_init__(self) -> None:
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
        """Such as "offline cfg_lab"."""
        return f"{self._mode} {f'{self.entity}/' if self.entity else ''}{self.project}"

    def log_cell(self, result: CellResult) -> Path | None:
        known = {name: value for name, value in result.summary.items() if math.isfinite(value)}
        scale: Any = result.settings.get(SCALE)
        with self._run(
            result.study, result.cell, result.label, "cell", nested(result.settings), result.folder
        ) as run:
            axis = {"step_metric": "scale"} if isinstance(scale, int | float) else {}
            for name in known:
                ends = name.endswith(("_low", "_high", "_n"))
                run.define_metric(name, hidden=ends or None, **axis)
            run.log(
                {
                    **known,
                    **({"scale": scale} if axis else {}),
                    **tables({"texts": result.texts, "tokens": result.tokens}),
                }
            )
            return _kept(run)

    def log_study(self, result: StudyResult) -> Path | None:
        import wandb

        config = dict(result.record)
        with self._run(result.study, "overview", "overview", "overview", config, result.folder) as run:
            run.summary.update(dict(result.costs))
            run.log(
                {
                    **tables({"summary": result.summary, "comparisons": result.comparisons}),
                    **{f"figures/{name}": _image(figure) for name, figure in result.figures.items()},
                    **({"page": wandb.Html(str(result.page), inject=False)} if result.page else {}),
                }
            )
            return _kept(run)

    def _run(self, study: str, part: str, name: str, kind: str, config: dict[str, Any], folder: Path) -> Any:
        import wandb

        mode = self._mode
        return wandb.init(
            project=self.project,
            entity=self.entity,
            group=study,
            job_type=kind,
            name=name,
            id=_run_id(study, part),
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # a run of the user's own, in a notebook, stays as it is
            config=config,
            dir=str(folder),
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                init_timeout=30,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )

    @cached_property
    def _mode(self) -> Any:
        if self.mode != "auto":
            return self.mode
        if asked := os.environ.get("WANDB_MODE"):
            return asked
        import wandb

        return "online" if wandb.login(prompt=False, verify=False) else "offline"


def _run_id(study: str, part: str) -> str:
    """Without what W&B does not take in ids, and short enough for the names of its tables."""
    plain = re.sub(r"[/\\#?%:\s]", "-", study)
    if plain != study or len(plain) > 64:  # another study may look the same then
        plain = f"{plain[:48]}-{blake2b(study.encode(), digest_size=4).hexdigest()}"
    return f"{plain}-{part}"


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"guidance": "cfg", "guidance.scale": 2} as {"guidance": {"option": "cfg", "scale": 2}}.

    W&B shows nested keys with dots between, "guidance.scale", and cannot filter by keys that have dots.
    """
    tree: dict[str, Any] = {}
    groups = {key.rpartition(".")[0] for key in settings} - {""}
    groups |= {group[:dot] for group in groups for dot, letter in enumerate(group) if letter == "."}
    for key, value in settings.items():
        *path, last = [*key.split("."), "option"] if key in groups else key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


def tables(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """W&B's tables of those frames that have rows; from lists, as it is slow to read a frame itself."""
    import wandb

    def table(frame: pd.DataFrame) -> wandb.Table:
        columns = [_of_one_type(frame[name].head(TABLE_ROWS).tolist()) for name in frame.columns]
        rows: Any = [list(row) for row in zip(*columns, strict=True)]
        return wandb.Table(columns=list(frame.columns), data=rows)

    return {name: table(frame) for name, frame in frames.items() if len(frame)}


def _of_one_type(values: list[Any]) -> list[Any]:
    """A column as W&B takes it: as text where numbers, truth values and texts are mixed."""
    known = [value for value in values if value is not None and value == value]
    if len({"number" if type(value) in (int, float) else type(value).__name__ for value in known}) < 2:
        return values
    return [None if value is None or value != value else str(value) for value in values]


def _image(figure: Figure) -> Any:
    import wandb
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=200)
    return wandb.Image(Image.open(drawn))


def _kept(run: Any) -> Path | None:
    """The folder of an offline run; what goes up at once is not kept."""
    return Path(run.dir).parent if run.offline else None
