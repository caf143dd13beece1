"""Loads the items of a task by its name: from a package, or as lm-eval loads it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import yaml

from cfg_lab.errors import InputError, reason_of
from cfg_lab.tasks.item import Item, TaskOptions, task_label
from cfg_lab.tasks.packaged import PACKAGED


def check_lm_eval() -> None:
    """Check that lm-eval is installed.

    Raises:
        InputError: it is not. The message says how to install it.
    """
    if find_spec("lm_eval") is None:
        raise InputError(
            "a benchmark's tasks are those of lm-eval, which is missing; install it with: "
            "pip install 'cfg_lab[lm_eval]'"
        )


def load_items(name: str, options: TaskOptions) -> list[Item]:
    """The items of a task, with prompts and answers as lm-eval writes them.

    Args:
        name: name of a packaged task (see `PACKAGED`), path of a YAML file that defines a task for lm-eval,
            or name of any other task of lm-eval, whose data come from the Hugging Face hub.
        options: which items, and how many examples stand before each question.

    Raises:
        InputError: there is no such task, its data cannot be loaded, it is not decided by the likelihood of
            given answers, or it has no training split for examples.
    """
    check_lm_eval()
    with _quiet_libraries():
        load = _packaged_task if name in PACKAGED else _file_task if name.endswith(".yaml") else _hub_task
        task = load(name)
        _check(name, task, options)
        task.set_config("num_fewshot", options.num_fewshot)
        task.set_fewshot_seed(options.seed)
        records = task.eval_docs
        label = task_label(name)
        return [_item(label, task, number, records[number]) for number in options.numbers(len(records))]


def _item(name: str, task: Any, number: int, record: Any) -> Item:
    context = task.fewshot_context(
        record, num_fewshot=task.config.num_fewshot, gen_prefix=task.doc_to_prefix(record)
    )
    requests = task.construct_requests(record, context)
    if task.OUTPUT_TYPE == "loglikelihood":
        answers, right = [requests.args[1]], [True]
        requests = [requests]
    else:
        answers = list(task.doc_to_choice(record))
        requests = requests[: len(answers)]  # acc_mutual_info adds requests without context
        target = task.doc_to_text(record) if task.multiple_input else task.doc_to_target(record)
        labels = _labels(target, answers)
        right = [answer in labels for answer in range(len(answers))]
    contexts, continuations = zip(*(request.args[:2] for request in requests), strict=True)
    if not any(right):
        raise InputError(f"tasks: no answer of {name}/{number} is marked as right")
    return Item(
        id=f"{name}/{number}",
        contexts=contexts,
        continuations=continuations,
        answers=tuple(answers),
        right=tuple(right),
    )


def _labels(target: Any, answers: list[str]) -> list[int]:
    """The numbers of the right answers. lm-eval's target is a number, an answer, or a list of these."""
    targets = cast("list[int | str]", target if isinstance(target, list) else [target])
    numbers = {answer: number for number, answer in enumerate(answers)}
    return [numbers.get(label, -1) if isinstance(label, str) else label for label in targets]


def _packaged_task(name: str) -> Any:
    """lm-eval's own task with the packaged data in the place of its data set."""
    import lm_eval.tasks

    packaged = PACKAGED[name]
    config = {
        "include": str(Path(lm_eval.tasks.__file__).parent / packaged.yaml),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": packaged.data_files()},
        "training_split": None,
        **packaged.overrides,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.yaml")
        path.write_text(yaml.safe_dump(config))
        manager = lm_eval.tasks.TaskManager(include_path=folder, include_defaults=False)
        return manager.load([name])["tasks"][name]


def _file_task(path: str) -> Any:
    """A task that a YAML file defines."""
    import lm_eval.tasks

    if not Path(path).is_file():
        raise InputError(f"tasks: there is no file {path!r}")
    manager = lm_eval.tasks.TaskManager(include_path=str(Path(path).parent), include_defaults=False)
    try:
        (task,) = manager.load([path])["tasks"].values()
    except Exception as error:  # the libraries raise many types
        raise InputError(f"tasks: lm-eval cannot load {path!r}: {reason_of(error)}") from error
    return task


def _hub_task(name: str) -> Any:
    """A task as lm-eval defines it. Its data come from the hub, or from the cache of the datasets library."""
    manager = _all_tasks()
    if name not in manager.all_tasks:
        matches = get_close_matches(name, cast("list[str]", manager.all_subtasks), 3)
        question = f" (did you mean {' or '.join(matches)}?)" if matches else ""
        raise InputError(
            f"tasks: there is no task {name!r}{question}; the packaged tasks are {', '.join(PACKAGED)}; "
            "`lm_eval ls tasks` lists the others"
        )
    if name not in manager.all_subtasks:
        raise InputError(f"tasks: {name!r} is a group of tasks; name its tasks, see `lm_eval ls tasks`")
    try:
        tasks = manager.load([name])["tasks"]
    except Exception as error:  # the libraries raise many types
        raise InputError(
            f"tasks: {name!r} is not among the packaged tasks ({', '.join(PACKAGED)}), and its data could "
            f"not be loaded from the hub: {reason_of(error)}"
        ) from error
    return tasks[name]


@cache
def _all_tasks() -> Any:
    """The index of all tasks of lm-eval, more than 10,000. Reading their YAML files takes seconds."""
    import lm_eval.tasks

    return lm_eval.tasks.TaskManager()


def _check(name: str, task: Any, options: TaskOptions) -> None:
    """Check that the lab can evaluate a task with these options."""
    if task.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood"):
        raise InputError(
            f"tasks: {name!r} is not decided by the likelihoods of given answers (its output_type is "
            f"{task.OUTPUT_TYPE}); run it with the lm-eval model of the lab, cfg_lab.integrations.lm_eval"
        )
    if options.num_fewshot and task.get_config("num_fewshot") == 0:
        raise InputError(
            f"num_fewshot is {options.num_fewshot}, but lm-eval defines {name!r} with 0 examples; "
            "set num_fewshot=0"
        )
    if options.num_fewshot and not task.has_training_docs():
        # lm-eval would take them from the evaluated split, and can show an item its own answer.
        raise InputError(
            f"num_fewshot is {options.num_fewshot}, but the data of {name!r} have no training split to take "
            "examples from; set num_fewshot=0"
        )


@contextmanager
def _quiet_libraries() -> Generator[None]:
    """Leave out progress bars and notes of lm-eval and datasets, which would break the console's lines."""
    import datasets

    names = ("lm_eval", "datasets")
    levels = {name: logging.getLogger(name).level for name in names}
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
