"""Weighted phrases: how a negative prompt is written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cfg_lab.errors import InputError


@dataclass(frozen=True)
class Phrase:
    """A thing to steer away from, and how much: below 0 it attracts."""

    text: str
    weight: float = 1.0


def parse_phrases(text: str) -> tuple[Phrase, ...]:
    r"""Read weighted phrases.

    Phrases are separated by commas; a weight follows a colon and is 1 without one. A backslash takes the
    next character literally. Full-width punctuation (，：、；) is understood.

    >>> parse_phrases("ugly:0.8, a 3\\:1 ratio")
    (Phrase(text='ugly', weight=0.8), Phrase(text='a 3:1 ratio', weight=1.0))

    Raises:
        InputError: an empty phrase or a weight that is not a finite number; says at which position.
    """
    if not text.strip():
        raise InputError("a negative prompt must have at least one phrase, got an empty text")
    phrases: list[Phrase] = []
    begin = 0
    for part in _split(text, ",，、;；"):
        words, *weights = _split(part, ":：")
        where = f"at position {begin + 1} of the negative prompt {text!r}"
        if not _unescape(words).strip():
            raise InputError(f"empty phrase {where}; write phrases as in 'ugly:0.8, low resolution'")
        if len(weights) > 1:
            raise InputError(f"more than one colon in {part.strip()!r} {where}; write a literal colon as \\:")
        phrases.append(Phrase(_unescape(words).strip(), _weight(weights[0], where) if weights else 1.0))
        begin += len(part) + 1
    return tuple(phrases)


def _split(text: str, separators: str) -> list[str]:
    r"""Split at separators that no backslash escapes."""
    parts: list[str] = []
    current, escaped = "", False
    for character in text:
        if not escaped and character in separators:
            parts.append(current)
            current = ""
        else:
            current += character
        escaped = character == "\\" and not escaped
    return [*parts, current]


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _weight(text: str, where: str) -> float:
    number = text.strip()
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", number, flags=re.ASCII | re.IGNORECASE):
        raise InputError(
            f"weight {number!r} {where} is not a number; write 'ugly:0.8', or a literal colon as \\:"
        )
    weight = float(number)
    if not math.isfinite(weight):
        raise InputError(f"weight {number!r} {where} is too large")
    return weight
