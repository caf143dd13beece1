"""The Python program in a text that a model wrote."""

from __future__ import annotations

import codeop
import re
import warnings
from typing import Any

_FENCE = re.compile(r"^```[^\n]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
"""A block of code in Markdown. A block without an end goes to the end of the text."""

_NOT_INDENTED = re.compile(r"^(?=\S)", re.MULTILINE)


def program_of(text: str, problem: dict[str, Any] | None) -> str | None:
    """The program that a text gives; None if there is no code in it.

    1. If the text has a block of code in Markdown, the first block is the code. Otherwise the code is the
       whole text.
    2. If there is no problem, the code is the program.
    3. If the code defines the function of the problem, the program is the code, after the lines of the
       problem that come before the function (imports and other functions).
    4. Otherwise the program is the problem, continued by the code. The code ends before the first line
       without indentation, because what follows the function's body is not part of the answer.

    Args:
        text: the text that the model wrote.
        problem: a problem of HumanEval, None for other prompts.
    """
    fenced = _FENCE.search(text)
    code = fenced[1] if fenced else text
    if problem is None:
        return code if code.strip() else None
    head = rf"^def {re.escape(problem['entry_point'])}\("
    if re.search(head, code, re.MULTILINE):
        (before, _) = re.split(head, problem["prompt"], maxsplit=1, flags=re.MULTILINE)
        return before + code
    body = _body(code)
    return problem["prompt"] + body if body.strip() else None


def _body(code: str) -> str:
    """The lines of a function's body, up to the first line without indentation."""
    end = _NOT_INDENTED.search(code)
    return code[: end.start()] if end else code


def is_valid(program: str, *, cut: bool) -> bool:
    """Whether a program has the syntax of Python. The program is not run.

    Args:
        program: the program.
        cut: whether the program was cut at a largest length. It is then judged without its last line, and is
            valid if further lines can make it valid.
    """
    if cut:
        program = program.rpartition("\n")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape sequence in a string
            if cut:
                codeop.compile_command(f"{program}\n", symbol="exec")
            else:
                compile(program, "program", "exec")
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return False
    return True
