"""The check of a trained policy: both halves of the prompts, beside decoding with constant scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from rich.console import Console

from cfg_lab.analysis import comparisons
from cfg_lab.analysis.frame import SETTING_GROUPS
from cfg_lab.study.build import SINGLE_VALUES, SWEEP_KEYS, build_study
from cfg_lab.study.cell import Study
from cfg_lab.study.config import changed_config
from cfg_lab.study.joined_results import joined_results
from cfg_lab.study.run import run_study, summary_of

HALVES = ("selection", "held_out")
_POLICY = "policy"


def check_policy(config: Any, policy: Path, command: str, console: Console) -> tuple[Study, pd.DataFrame]:
    """Decode and score the check: each half without guidance, with the policy, and at two constant scales.

    The constant scales are the largest scale of the policy, and its mean scale on the selection half.

    Args:
        config: the composed config of the training.
        policy: the file policy.json.
        command: the command line, for the record.
        console: where to show the progress.

    Returns:
        The study, whose cells are in the results folder, and its results, with one row per text.
    """
    scales: list[float | str] = [1, _POLICY]
    run_study(_study(config, policy, scales, command), console)
    study = _study(config, policy, scales, command)
    mean = _mean_scale(study)
    scales += sorted({mean, float(config.guidance.scale)} - {1.0})
    study = _study(config, policy, scales, command)
    run_study(study, console)
    summary_of(study)
    return study, joined_results(study.store, cells=[cell.id for cell in study.cells])


def differences(study: Study, results: pd.DataFrame, column: str) -> list[str]:
    """In sentences: the policy minus each constant scale on both halves, with 95 % intervals over prompts."""
    sentences: list[str] = []
    for half in HALVES:
        ids = {cell.label["scale"]: cell.id for cell in study.cells if cell.label["half"] == half}
        for label, cell in ids.items():
            if label == _POLICY:
                continue
            pair = results[results["cell"].isin([cell, ids[_POLICY]])]
            row = cast("Mapping[str, Any]", comparisons(pair, [column], cell).to_dict("records")[0])
            sentences.append(
                f"{half}: {column} of the policy − constant scale {label}: {row['difference']:+.3f} "
                f"[{row['low']:+.3f}, {row['high']:+.3f}], {int(row['n'])} pairs of texts"
            )
    return sentences


def _study(config: Any, policy: Path, scales: Sequence[float | str], command: str) -> Study:
    """A study with one cell per half and scale."""
    keys = (*SWEEP_KEYS, *SETTING_GROUPS, *SINGLE_VALUES, "stop", "hydra")
    configs: list[Any] = []
    labels: list[dict[str, str]] = []
    choices = {**config.hydra.runtime.choices, "guidance/adaptive": "policy"}
    adaptive = {"_target_": "cfg_lab.guidance.load_policy", "path": str(policy), "any_scale": False}
    for half in HALVES:
        for scale in scales:
            changes: dict[str, Any] = {"guidance.scale": scale}
            if scale == _POLICY:
                changes = {"guidance.adaptive": adaptive, "hydra.runtime.choices": choices}
            configs.append(changed_config(config, keys, {"prompts.half": half, **changes}))
            labels.append({"half": half, "scale": scale if isinstance(scale, str) else f"{scale:g}"})
    return build_study(configs, labels, command)


def _mean_scale(study: Study) -> float:
    """The mean scale of the policy's tokens on the selection half, rounded to 0.01."""
    (cell,) = [cell for cell in study.cells if cell.label == {"half": "selection", "scale": _POLICY}]
    scales = joined_results(study.store, ["trace_scale"], [cell.id])["trace_scale"]
    return round(float(np.concatenate([np.asarray(of_text) for of_text in scales]).mean()), 2)
