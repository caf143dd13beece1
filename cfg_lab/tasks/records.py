"""Converts records of packaged data to the fields that lm-eval's own tasks read.

Each function returns split -> records. `cfg_lab.tasks.packaged` says how the data differ from the official
data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Records = Sequence[Mapping[str, Any]]
Splits = dict[str, list[dict[str, Any]]]


def hellaswag(items: Records) -> Splits:
    """HellaSwag items, with the labels that the data themselves show.

    The package has test items, whose labels are not published. But several items ask for successive sentences
    of one description, so the context of a later item often contains the right ending of an earlier item.

    1. The unfinished sentence of an item is the part of its context after the last sentence end.
    2. An ending is continued if some context of the data contains the unfinished sentence with this ending.
    3. If exactly one of the four endings is continued, it is the right one: the other endings were written by
       a language model and occur nowhere else. All other items are left out.
    """
    contexts = "\n".join(_words(item["question"]) for item in items)
    records: list[dict[str, Any]] = []
    for item in items:
        before, unfinished = _at_last_sentence_end(item["question"])
        continued = [_words(f"{unfinished} {ending}") in contexts for ending in item["answer"]]
        if sum(continued) == 1:
            records.append(
                {
                    "activity_label": "",
                    "ctx_a": before,
                    "ctx_b": unfinished,
                    "endings": list(item["answer"]),
                    "label": str(continued.index(True)),
                }
            )
    return {"validation": records}


def boolq(validation: Records, combined: Records) -> Splits:
    """BoolQ as in SuperGLUE: the passage begins with its title.

    Args:
        validation: the official validation split, in its order, with titles beside the passages.
        combined: items of all splits, without order. The labelled ones are those of training and validation.
    """
    records = [
        {
            "passage": f"{item['title']} -- {item['passage']}",
            "question": item["question"],
            "label": int(item["answer"] == "True"),
        }
        for item in validation
    ]
    validation_keys = {(record["question"], record["passage"]) for record in records}
    training = [
        {"passage": item["passage"], "question": item["question"], "label": int(item["label"])}
        for item in sorted(combined, key=lambda item: int(item["idx"]))
        if item.get("label") is not None and (item["question"], item["passage"]) not in validation_keys
    ]
    return {"validation": records, "train": training}


def piqa(validation: Records) -> Splits:
    """PIQA: both solutions stand in one text, "A. …" and "B. …" in lines of their own."""
    records: list[dict[str, Any]] = []
    for item in validation:
        first, second = item["options"].removeprefix("A. ").split("\nB. ")
        records.append(
            {
                "goal": item["question"],
                "sol1": first,
                "sol2": second,
                "label": "AB".index(item["answer"][0]),
            }
        )
    return {"validation": records}


def truthfulqa_mc1(questions: Mapping[str, Any]) -> Splits:
    """TruthfulQA's MC1: the best answer first, then all false answers, without the full stop at the end."""
    records: list[dict[str, Any]] = []
    for item in questions["examples"]:
        choices = [_without_full_stop(text) for text in (item["Best answer"], *item["False answers"])]
        records.append(
            {
                "question": item["Question"],
                "mc1_targets": {"choices": choices, "labels": [1] + [0] * (len(choices) - 1)},
            }
        )
    return {"validation": records}


def _at_last_sentence_end(text: str) -> tuple[str, str]:
    """Split a text after its last sentence that is complete."""
    complete, _, unfinished = re.fullmatch(r"(.*[.!?])(\s+)(.*)", text, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return complete, unfinished


def _words(text: str) -> str:
    """The words of a text in lower case, with single spaces around each."""
    return f" {re.sub(r'[^a-z0-9]+', ' ', text.lower()).strip()} "


def _without_full_stop(text: str) -> str:
    """Remove one full stop at the end, but not that of an abbreviation such as "U.S."."""
    text = text.strip()
    return text if "." in text.removesuffix(".").rpartition(" ")[2] else text.removesuffix(".")
