"""Sentences about the prompts of a study, printed before it is decoded: what the lab understood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cfg_lab.negatives import FileNegative, Phrase, PhraseNegative
from cfg_lab.study.cell import Cell
from cfg_lab.study.formats import count
from cfg_lab.study.planned_text import PlannedText

_MAX_PHRASE_LISTS = 4
"""With more lists of negative phrases, only the first is printed."""


def phrases_in_words(cells: Iterable[Cell]) -> list[str]:
    """Say which negative phrases the cells have, and with which weights. One sentence per list of phrases.

    Raises:
        InputError: the phrases of a prompt cannot be parsed, or a prompt has none.
    """
    lists = dict.fromkeys(
        cell.negatives.phrases_of(prompt)
        for cell in cells
        if isinstance(cell.negatives, PhraseNegative | FileNegative)
        for prompt in cell.prompts
    )
    sentences = [f"negative phrases: {', '.join(map(_in_words, phrases))}" for phrases in lists]
    if len(sentences) <= _MAX_PHRASE_LISTS:
        return sentences
    return [f"{sentences[0]}; and {count(len(sentences) - 1, 'other list')} of phrases"]


def _in_words(phrase: Phrase) -> str:
    return f'"{phrase.text}"' + (f" (weight {phrase.weight:g})" if phrase.weight != 1 else "")


def duplicates_in_words(plans: Iterable[Sequence[PlannedText]]) -> list[str]:
    """Say how many prompts have the same context as an earlier prompt of their cell. Empty if none has.

    Args:
        plans: the planned texts of each cell.
    """
    sentences: dict[str, None] = {}
    for texts in plans:
        prompts = len({text.prompt.id for text in texts})
        duplicates = prompts - len({text.request.positive for text in texts})
        if duplicates:
            has = "duplicates an earlier prompt" if duplicates == 1 else "duplicate earlier prompts"
            sentences[
                f"{duplicates:,} of {count(prompts, 'prompt')} {has}: intervals and p values count prompts "
                "with the same context as one prompt"
            ] = None
    return list(sentences)
