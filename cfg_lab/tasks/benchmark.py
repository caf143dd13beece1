"""The classes `Benchmark` and `BenchmarkCell`, and how composed configs become them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from omegaconf import DictConfig

from cfg_lab.analysis.frame import TASK
from cfg_lab.errors import InputError
from cfg_lab.metrics import MultipleChoice
from cfg_lab.study.build import (
    add_content,
    build_shared,
    check_keys,
    check_shared_keys,
    config_file,
    settings_and_keys,
)
from cfg_lab.study.cell import StoredCell, StoredStudy
from cfg_lab.study.config import check_option, plain_config
from cfg_lab.study.provenance import command_line, environment_file
from cfg_lab.study.results_folder import results_folder, study_name
from cfg_lab.study.store import IDENTITY_VERSION, Store
from cfg_lab.tasks.item import TaskOptions, task_label
from cfg_lab.tasks.packaged import PACKAGED

GROUPS = ("model", "negatives", "guidance")
"""Config groups that define a cell."""

SHARED_KEYS = ("name", "results_root", "tracking", "report")
"""Config keys that must have the same value in all cells."""

_TASK_KEYS = ("tasks", "limit", "num_fewshot", "seed")


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchmarkCell(StoredCell):
    """One cell of a benchmark: a task with a model, negatives and a guidance rule.

    Attributes:
        task: name of the task.
        options: which items of the task, and how many examples stand before each question.
    """

    task: str
    options: TaskOptions


@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark(StoredStudy):
    """Cells whose items are scored, and the folder of their results."""

    cells: Sequence[BenchmarkCell]


def build_benchmark(
    configs: Sequence[DictConfig], labels: Sequence[Mapping[str, str]], command: str | None = None
) -> Benchmark:
    """Build a benchmark from composed configs: one cell for each config and each of its tasks.

    Args:
        configs: as for `cfg_lab.study.build.build_study`.
        labels: for each config, the overrides in which it differs from the others, as key -> value.
        command: the command line to store in the results. None means the command line of this process.

    Raises:
        InputError: a value in a config is wrong.
    """
    check_shared_keys(labels, SHARED_KEYS)
    first = plain_config(configs[0])
    check_keys(first, (*_TASK_KEYS, *GROUPS, *SHARED_KEYS))
    name = study_name(first.get("name"))
    root = results_folder(first.get("results_root"), name)
    command = command_line("cfg_lab.benchmark") if command is None else command
    shared: dict[str, Any] = {}
    cells = [
        cell for config, label in zip(configs, labels, strict=True) for cell in _cells(config, label, shared)
    ]
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    return Benchmark(
        name=name,
        cells=sorted(cells, key=lambda cell: tasks.index(cell.task)),
        metrics=[MultipleChoice()],
        store=Store(root),
        command=command,
        provenance={
            "config.yaml": config_file(first, [cell.label for cell in cells], command),
            "environment.json": environment_file(),
        },
    )


def _cells(config: DictConfig, label: Mapping[str, str], shared: dict[str, Any]) -> list[BenchmarkCell]:
    """The cells that a config describes, one per task.

    Args:
        config: the config.
        label: the settings in which the config differs from others.
        shared: objects of earlier cells, see `build_shared`.
    """
    values = plain_config(config)
    for group in GROUPS:
        check_option(values, group)
    for key in _TASK_KEYS:
        if key not in values:
            raise InputError(f"{key} has no value; set +{key}=…")
    options = TaskOptions(**{key: values[key] for key in _TASK_KEYS if key != "tasks"})
    settings, keys = settings_and_keys(config, {group: values[group] for group in GROUPS})
    objects = build_shared(config, keys, shared)
    add_content(settings, keys, objects)
    shown = {key: str(settings[key]) for key in ("guidance.scale", "negatives") if key in settings}
    cells: list[BenchmarkCell] = []
    for task in _task_names(values["tasks"]):
        data = PACKAGED[task].identity if task in PACKAGED else "lm-eval"
        cells.append(
            BenchmarkCell(
                identity=json.dumps(
                    [IDENTITY_VERSION, "benchmark", *keys.values(), task, data, asdict(options)]
                ),
                settings={TASK: task_label(task), **settings, **asdict(options)},
                label={
                    TASK: task_label(task),
                    **shown,
                    **{key: label[key] for key in label if key != "tasks"},
                },
                model_key=keys["model"],
                **objects,
                task=task,
                options=options,
            )
        )
    return cells


def _task_names(value: Any) -> list[str]:
    """Check the value of `tasks`: a list of names, or one name."""
    names = cast("list[Any]", [value] if isinstance(value, str) else value)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"tasks must be a list of names, such as 'tasks=[{','.join(PACKAGED)}]', got {value!r}"
        )
    labels = list(map(task_label, names))
    if repeated := {label for label in labels if labels.count(label) > 1}:
        raise InputError(f"tasks must name each task once, got {', '.join(sorted(repeated))} several times")
    return names
