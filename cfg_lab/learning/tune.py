"""The command `python -m cfg_lab.learn tune`: tunes a model on a reward.

Guidance between the tuned model and its base then gives every strength of the tuning.
"""

from __future__ import annotations

import json
import time
from typing import cast

import pandas as pd
from omegaconf import DictConfig

from cfg_lab.learning.training_record import check_same_training
from cfg_lab.learning.tuning_plan import TuningPlan, build_tuning
from cfg_lab.study.config import build
from cfg_lab.study.console import open_console, print_paths, show_warnings
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.provenance import environment_file
from cfg_lab.track import Tracker
from cfg_lab.track.progress import open_progress

_SETTINGS, _STEPS = "training.json", "steps.parquet"


def tune(config: DictConfig) -> None:
    """Tune a model as a composed config of conf/learn_tune.yaml says.

    The results folder then has adapter/ (for model.adapter) and steps.parquet (reward and divergence of each
    step). The same config again does only what is missing.

    Raises:
        InputError: a value is wrong, or the folder has a model that was tuned with another config.
            Nothing was written.
        StoreError: a file cannot be written.
    """
    console = open_console()
    show_warnings(console)
    plan, tracker = build_tuning(config), cast("Tracker", build(config, "tracking"))
    _check_folder(plan)
    plan.store.check_writable()
    plan.store.write_text(_SETTINGS, json.dumps(plan.training, indent=2))
    steps = plan.store.root / _STEPS
    if not plan.folder.is_dir() or not steps.is_file():
        from cfg_lab.learning.tuning import tune_model  # trl takes seconds to import

        plan.aim.metric.score([])  # loads what it needs, before the training begins
        plan.store.write_text("environment.json", environment_file())
        with open_progress(tracker, plan.name, "training", plan.store.root, time.time()) as log:
            numbers = tune_model(plan, log, lambda left: ProgressBar(console, "tuning", left, "steps"))
        table = pd.DataFrame(numbers).to_parquet(index=False, compression="zstd")
        plan.store.write_bytes(_STEPS, table)
    numbers = pd.read_parquet(steps)
    fifth = max(1, len(numbers) // 5)
    console.print(
        f"mean reward {numbers['reward'].head(fifth).mean():.3f} in the first {fifth} steps, "
        f"{numbers['reward'].tail(fifth).mean():.3f} in the last",
        highlight=False,
    )
    print_paths(console, {"adapter": plan.folder, "steps": steps})
    name = plan.training["model"]["name"]
    console.print(
        f"To guide between it and its base: python -m cfg_lab.sweep model.name={name} "
        f"model.adapter={plan.folder} negatives=base negatives.models.base.name={name} "
        "guidance.scale=0,0.5,1,1.5,2",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _check_folder(plan: TuningPlan) -> None:
    """Raise InputError if the folder has a tuned model, or a part of its training, of another config."""
    file = plan.store.root / _SETTINGS
    if not file.is_file():
        return
    training = json.loads(file.read_text(encoding="utf-8"))
    check_same_training(plan.name, plan.store.root, "a model that was tuned", training, plan.training)
