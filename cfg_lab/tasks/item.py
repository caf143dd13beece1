"""The classes `Item` and `TaskOptions`, and the names of tasks in results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cfg_lab.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question of a task with its possible answers, as texts.

    A model scores each continuation after its context. All fields but `id` have one entry per answer, in the
    order of the task. A task without alternatives, such as LAMBADA, has a single answer.

    Attributes:
        id: name of the task, and number of the item in the task's data: "hellaswag/17".
        contexts: the text before the answer, with few-shot examples. Usually the same for all answers.
        continuations: the text whose likelihood is measured: a delimiter, usually a space, and the answer.
        answers: the answers without delimiter. Their numbers of characters normalise the score `acc_norm`.
        right: whether the answer is right.
    """

    id: str
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    answers: tuple[str, ...]
    right: tuple[bool, ...]

    @property
    def prompt(self) -> str:
        """The context, or the different contexts joined by a line if each answer has its own."""
        return "\n———\n".join(dict.fromkeys(self.contexts))


def task_label(name: str) -> str:
    """The name of a task in results. Of the path of a YAML file, it is the name of the file alone."""
    return Path(name).stem if name.endswith(".yaml") else name


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Which items of a task are used, and which examples stand before each question.

    Attributes:
        limit: number of items, at least 1. They are spaced evenly over the task's data. None means all items.
        num_fewshot: number of answered examples before each question, at least 0. They are drawn from the
            task's training split.
        seed: seed of the draw of examples, at least 0.

    Raises:
        InputError: a value is out of range.
    """

    limit: int | None = None
    num_fewshot: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("num_fewshot", 0), ("seed", 0)):
            value = getattr(self, name)
            if name == "limit" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
                null = " or null" if name == "limit" else ""
                raise InputError(
                    f"{name} must be a whole number of at least {least} and at most 64 bits{null}, "
                    f"got {value!r}"
                )

    def numbers(self, size: int) -> list[int]:
        """The numbers of the items to use, out of `size` items, in ascending order."""
        count = size if self.limit is None else min(self.limit, size)
        return [number * size // count for number in range(count)]
