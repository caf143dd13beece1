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
    3. If the first line of the code is not indented, the code should define the function of the problem. The
       program is the code, after the lines of the problem that come before the function (imports and other
       functions).
    4. Otherwise the program is the problem, continued by the code. The code ends before the first line
       without indentation, because what follows the function's body is not part of the answer.

    Args:
        text: the text that the model wrote.
        problem: a problem of HumanEval, None for other prompts.
    """
    fenced = _FENCE.search(text)
    code = fenced[1] if fenced else text
    if not code.strip():
        return None
    if problem is None:
        return code
    if not code.lstrip("\n")[:1].isspace():
        return re.split(rf"^def {problem['entry_point']}\(", problem["prompt"], flags=re.MULTILINE)[0] + code
    end = _NOT_INDENTED.search(code)
    return problem["prompt"] + (code[: end.start()] if end else code)


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
