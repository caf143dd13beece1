"""The metric `code`: what counts as a program, what is valid, what passes, and what a program may not do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cfg_lab import Prompt
from cfg_lab.errors import InputError
from cfg_lab.metrics import Code
from cfg_lab.metrics.code_program import is_valid, program_of
from cfg_lab.metrics.code_runner import passes
from cfg_lab.prompts import human_eval
from cfg_lab.prompts.packaged import human_eval_problems
from tests.texts import text

PROBLEM = {"prompt": 'import math\n\ndef half(x):\n    """Half of x."""\n', "entry_point": "half"}
BODY = "    y = x / 2\n\n    return y\n"


@pytest.mark.parametrize(
    ("written", "program"),
    [
        (BODY, PROBLEM["prompt"] + BODY),
        (f"{BODY}\nprint(half(3))\n", f"{PROBLEM['prompt']}{BODY}\n"),
        (f"\n{BODY}", f"{PROBLEM['prompt']}\n{BODY}"),
        (f"```python\n{BODY}```\nThis is half.", PROBLEM["prompt"] + BODY),
        (f"Sure:\n```\ndef half(x):\n{BODY}```", f"import math\n\ndef half(x):\n{BODY}"),
        (f"def half(x):\n{BODY}", f"import math\n\ndef half(x):\n{BODY}"),
        (f"```python\ndef half(x):\n{BODY}", f"import math\n\ndef half(x):\n{BODY}"),
        ("", None),
        ("half = lambda x: x / 2", "import math\n\nhalf = lambda x: x / 2"),
        ("The half is x / 2.", "import math\n\nThe half is x / 2."),
        (" \n", None),
        ("```\n```", None),
    ],
)
def test_the_program_in_a_text(written: str, program: str | None) -> None:
    assert program_of(written, PROBLEM) == program


@pytest.mark.parametrize("number", range(0, 164, 20))
def test_every_beginning_of_a_solution_is_valid_if_it_was_cut(number: int) -> None:
    problem = human_eval_problems()[f"HumanEval/{number}"]
    solution = problem["canonical_solution"]
    for length in range(len(solution)):
        assert is_valid(problem["prompt"] + solution[:length], cut=True)
    assert is_valid(problem["prompt"] + solution, cut=False)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    "wrong", ["x = = 1", "return 1", "  x", "if x\n  y", "x = \0", "(" * 500 + ")" * 500]
)
def test_an_error_is_found_wherever_the_text_was_cut(wrong: str, cut: bool) -> None:
    assert not is_valid(f"{wrong}\ny = 2\nz", cut=cut)


def test_the_solutions_of_humans_pass_and_others_fail() -> None:
    prompts = human_eval()[::16]
    metric = Code(execute=True)
    for written, expected in [(lambda prompt: prompt.references[0], 1), (lambda _: "    return None\n", 0)]:
        texts = [text(written(prompt), prompt=prompt) for prompt in prompts]
        scores = metric.score(texts)
        assert scores["syntax_valid"] == [1] * len(prompts)
        assert scores["passes"] == [expected] * len(prompts)


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "while True: pass",
        "import time; time.sleep(60)",
        "x = 'a' * 10**9",
        "open('new', 'w')",
        "import os; os.remove('VICTIM')",
        "import os; os.truncate('VICTIM', 0)",
        "import os; os.rename('VICTIM', 'VICTIM2')",
        "import os; os.mkdir('folder')",
        "import os; os.open('new', os.O_CREAT | os.O_WRONLY)",
        "import os; os.fork()",
        "import os; os.system('true')",
        "import os; os.kill(os.getppid(), 0)",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
        "import urllib.request; urllib.request.urlopen('http://localhost')",
        "import ctypes; ctypes.CDLL(None)",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "import os; assert 'HOME' in os.environ",
        "import pytest",
        "input()",
    ],
)
def test_a_program_that_does_what_it_may_not_do_fails(program: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("alive")
    assert not passes(program.replace("VICTIM", str(victim)), seconds=1, megabytes=128)
    assert victim.read_text() == "alive"
    assert list(tmp_path.iterdir()) == [victim]


def test_a_program_may_use_the_standard_library() -> None:
    program = (
        "import collections, hashlib, heapq, math, re, string, typing; print(math.pi); hashlib.md5(b'a')"
    )
    assert passes(program, seconds=2, megabytes=256)


def test_nothing_is_run_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfg_lab.metrics.code.passes", lambda *_, **__: pytest.fail("a program was run"))
    assert Code().score([text("x = = 1", prompt=human_eval(limit=1)[0])]) == {"syntax_valid": [0]}
    assert list(Code().columns) == ["syntax_valid"]


def test_other_prompts_have_no_tests() -> None:
    scores = Code(execute=True).score([text("x = 1", prompt=Prompt(id="1", text="?"))])
    assert scores["syntax_valid"] == [1]
    assert math.isnan(scores["passes"][0])


def test_limits_in_which_nothing_can_run_are_refused() -> None:
    with pytest.raises(InputError, match=r"metrics\.code\.megabytes must be .* got 1$"):
        Code(execute=True, megabytes=1)
