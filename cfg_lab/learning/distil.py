"""The command `python -m cfg_lab.learn distil`: trains a student of guidance, and checks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pandas as pd
from omegaconf import DictConfig
from rich.console import Console

from cfg_lab.learning.student_check import check_student, check_table
from cfg_lab.learning.student_plan import StudentPlan, build_plan
from cfg_lab.learning.student_training import STATE_FILE, TrainingState, read_state, train
from cfg_lab.learning.training_record import check_same_training
from cfg_lab.models.student import STUDENT_FILE, StudentCard, as_base, base_fingerprint
from cfg_lab.study.config import build
from cfg_lab.study.console import open_console, print_paths, show_warnings
from cfg_lab.study.formats import count
from cfg_lab.study.provenance import environment_file
from cfg_lab.track import Tracker

_STEPS, _CHECK = "steps.parquet", "check.parquet"


def distil(config: DictConfig) -> None:
    """Train a student as a composed config of conf/learn_distil.yaml says, and compare it with guidance.

    The results folder then has student/ (for model=student), steps.parquet (scale, loss and divergence of
    each step), check.parquet (see `check_student`) and cost.json (what the training cost). The same config
    again does only what is missing.

    Raises:
        InputError: a value is wrong, or the folder has a student of another config. Nothing was written.
        StoreError: a file cannot be read or written.
    """
    console = open_console()
    show_warnings(console)
    plan, tracker = build_plan(config), cast("Tracker", build(config, "tracking"))
    state = _state(plan)
    plan.store.check_writable()
    if not plan.folder.is_dir():
        _train(plan, state, tracker, console)
    check_file = plan.store.root / _CHECK
    check = pd.read_parquet(check_file) if check_file.is_file() else None
    if check is None or not _is_current(check, plan):
        check = check_student(plan, console)
        _write_table(plan, _CHECK, check)
    console.print(check_table(check))
    paths = {"student": plan.folder, "steps": plan.store.root / _STEPS, "check": check_file}
    runs = tracker.local_path(plan.store.root)
    print_paths(console, paths | ({tracker.name: runs} if runs else {}))
    scale = plan.settings.scales[1]
    console.print(
        f"To decode with it: python -m cfg_lab.sweep model=student model.path={plan.folder} "
        f"model.scale={scale:g} negatives=none guidance.scale=1",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _state(plan: StudentPlan) -> TrainingState:
    """The state from which the training goes on.

    Raises:
        InputError: the folder has a student, or a part of its training, of another config.
        StoreError: the saved state is damaged.
    """
    saved = None if plan.folder.is_dir() else read_state(plan)
    training = StudentCard.read(plan.folder, "name").training if plan.folder.is_dir() else None
    training = saved.training if saved else training
    if training is not None:
        kind = "a student that was trained"
        check_same_training(plan.name, plan.store.root, kind, training, plan.training)
    return saved or TrainingState(training=dict(plan.training))


def _train(plan: StudentPlan, state: TrainingState, tracker: Tracker, console: Console) -> None:
    """Train the student, and write its folder."""
    if state.round:
        console.print(f"{len(state.steps)} of {plan.settings.steps} steps are done already", highlight=False)
    plan.store.write_text("environment.json", environment_file())
    lora = train(plan, state, tracker, console)
    _write_table(plan, _STEPS, pd.DataFrame(state.steps))
    cost = {"texts": state.texts, "tokens": state.tokens, "seconds": round(state.seconds, 1)}
    plan.store.write_text("cost.json", json.dumps(cost))
    lora.save(plan.folder, {STUDENT_FILE: _card(plan).text()})
    (plan.store.root / STATE_FILE).unlink(missing_ok=True)
    console.print(
        f"trained on {count(state.texts, 'text')} with {state.tokens:,} tokens, sampled for it, in "
        f"{state.seconds:.0f} s",
        highlight=False,
    )


def _card(plan: StudentPlan) -> StudentCard:
    """What is written beside the LoRA."""
    training = plan.training
    arguments: dict[str, Any] = {
        key: value for key, value in training["model"].items() if not key.startswith("_")
    }
    folder = Path(arguments["name"])
    if folder.is_dir():  # the student may be used from another folder
        arguments["name"] = str(folder.resolve())
    low, high = plan.settings.scales
    return StudentCard(
        base=arguments,
        base_fingerprint=base_fingerprint(as_base(plan.model)),
        negatives=training["negatives"],
        guidance=training["guidance"],
        scales=(float(low), float(high)),
        strength=plan.settings.strength,
        training=training,
        command=plan.command,
    )


def _is_current(check: pd.DataFrame, plan: StudentPlan) -> bool:
    """Whether a stored check has the scales and prompts that the config asks for."""
    prompts = {prompt.prompt.id for prompt in plan.held_out}
    return set(check["scale"]) == set(map(float, plan.settings.check_scales)) and (
        set(check["prompt_id"]) == prompts
    )


def _write_table(plan: StudentPlan, name: str, table: pd.DataFrame) -> None:
    """Write a table as Parquet, whole or not at all."""
    plan.store.write_bytes(name, table.to_parquet(index=False, compression="zstd"))
