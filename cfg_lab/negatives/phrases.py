"""The grammar of negative prompts: phrases with weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cfg_lab.errors import InputError


@dataclass(frozen=True)
class Phrase:
    """A phrase to steer away from, with its weight. A weight below 0 steers towards the phrase."""

    text: str
    weight: float = 1.0


def parse_phrases(text: str) -> tuple[Phrase, ...]:
    r"""The phrases of a negative prompt, with their weights.

    Commas and semicolons separate phrases. A weight follows its phrase after a colon. A phrase without a
    weight has weight 1. A backslash makes the next character a literal part of the phrase. Full-width
    punctuation (，：、；) works too.

    >>> parse_phrases("ugly:0.8, a 3\\:1 ratio")
    (Phrase(text='ugly', weight=0.8), Phrase(text='a 3:1 ratio', weight=1.0))

    Raises:
        InputError: a phrase is empty, or a weight is not a finite number. The message names the position.
    """
    if not text.strip():
        raise InputError("a negative prompt must have at least one phrase, got an empty text")
    phrases: list[Phrase] = []
    begin = 0
    for item in _split(text, ",，、;；"):
        phrase_text, *weights = _split(item, ":：")
        phrase_text = _unescape(phrase_text).strip()
        position = f"at position {begin + 1} of the negative prompt {text!r}"
        if not phrase_text:
            raise InputError(f"empty phrase {position}; write phrases as in 'ugly:0.8, low resolution'")
        if len(weights) > 1:
            raise InputError(
                f"more than one colon in {item.strip()!r} {position}; write a literal colon as \\:"
            )
        phrases.append(Phrase(phrase_text, _weight(weights[0], position) if weights else 1.0))
        begin += len(item) + 1
    return tuple(phrases)


def _split(text: str, separators: str) -> list[str]:
    r"""Split a text at every separator that is not escaped by a backslash."""
    items: list[str] = []
    current, escaped = "", False
    for character in text:
        if not escaped and character in separators:
            items.append(current)
            current = ""
        else:
            current += character
        escaped = character == "\\" and not escaped
    return [*items, current]


def _unescape(text: str) -> str:
    r"""Remove the backslash before each escaped character of a text."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _weight(text: str, position: str) -> float:
    """Convert the text after the colon of a phrase to a number, the phrase's weight.

    `position` says where the phrase stands in the negative prompt, for error messages.
    """
    number = text.strip()
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", number, flags=re.ASCII | re.IGNORECASE):
        raise InputError(
            f"weight {number!r} {position} is not a number; write 'ugly:0.8', or a literal colon as \\:"
        )
    weight = float(number)
    if not math.isfinite(weight):
        raise InputError(f"weight {number!r} {position} is too large")
    return weight
