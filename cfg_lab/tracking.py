"""Mirroring results to Weights & Biases. The only place that knows wandb."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import pandas as pd

from cfg_lab.records import InputError

WandbMode = Literal["auto", "online", "offline"]


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A finished cell as a tracker sees it.

    Attributes:
        study: name of the study it belongs to.
        cell: its id.
        label: what tells it from the study's other cells, for people.
        settings: its config, flat.
        means: every metric's mean and the ends of its interval (`…_low`, `…_high`).
        texts: a row a text, with its scores.
        folder: of the results.
    """

    study: str
    cell: str
    label: str
    settings: Mapping[str, Any]
    means: Mapping[str, float]
    texts: pd.DataFrame
    folder: Path


class Tracker(Protocol):
    """Shown every finished cell. May fail: the sweep goes on and says so."""

    def log(self, result: CellResult) -> None: ...


@dataclass(frozen=True)
class NoTracker:
    """tracking=none."""

    def log(self, result: CellResult) -> None:
        """Nothing is logged."""


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """One W&B group a study, one run a cell, with its config, its means as summary and a table of its texts.

    A run's id is derived from the cell, so logging a cell again updates its run.

    Args:
        project, entity: where runs go; entity None is your default one.
        mode: "online" or "offline"; "auto" is WANDB_MODE where it is set, else online where there is an
            API key. Offline runs lie in the results' folder `wandb` and go up with `wandb sync`.
    """

    project: str = "cfg_lab"
    entity: str | None = None
    mode: WandbMode = "auto"

    def __post_init__(self) -> None:
        if self.mode not in get_args(WandbMode):
            raise InputError(
                f"tracking.mode must be one of {', '.join(get_args(WandbMode))}, got {self.mode!r}"
            )

    def log(self, result: CellResult) -> None:
        import wandb

        mode = self._mode()
        run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=result.study,
            name=result.label,
            id=f"{result.study}-{result.cell}",
            resume="allow" if mode == "online" else None,
            config=dict(result.settings),
            dir=str(result.folder),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
        with run:
            run.summary.update(dict(result.means))
            run.log({"texts": wandb.Table(dataframe=result.texts)})

    def _mode(self) -> Any:
        if self.mode != "auto":
            return self.mode
        import wandb

        return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
