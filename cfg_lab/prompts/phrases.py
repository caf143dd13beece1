"""The grammar of negative prompts: phrases with weights."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.errors import InputError

SEPARATORS = ",，、;；"
COLONS = ":："


@dataclass(frozen=True)
class Phrase:
    """A phrase to steer away from, with its weight. A weight below 0 steers towards the phrase."""

    text: str
    weight: float = 1.0


_NUMBER_AT_END = re.compile(r"(?<![.:：])(?:(?<!\w)(?<!\w-)|(?<=[\u0e00-\U0010ffff]))\d+(?:\.\d+)?\s*\Z")
"""A number at the end of a text. It is not the end of "GPT-4", "SD1.5" or "16\\:9".

Chinese, Thai and other scripts from U+0E00 on write no space between a word and a number.
"""


def parse_phrases(text: str) -> tuple[Phrase, ...]:
    r"""The phrases of a negative prompt, with their weights.

    Commas and semicolons separate phrases. A weight follows its phrase after a colon. A phrase without a
    weight has weight 1. After a number, a colon without a space is part of the phrase: "16:9" and "at 10:30"
    are phrases, and "top 10: 0.5" is the phrase "top 10" with a weight. A backslash makes the next character
    a literal part of the phrase. Full-width punctuation (，：、；) works too.

    >>> parse_phrases("ugly:0.8, ratio 16:9, a\\, b")
    (Phrase(text='ugly', weight=0.8), Phrase(text='ratio 16:9', weight=1.0), Phrase(text='a, b', weight=1.0))

    Raises:
        InputError: a phrase is empty, or a weight is not a finite number. The message names the position.
    """
    if not text.strip():
        raise InputError("a negative prompt must have at least one phrase, got an empty text")
    phrases: list[Phrase] = []
    begin = 0
    for item in _split(text, SEPARATORS):
        position = f"at position {begin + 1} of the negative prompt {text!r}"
        phrases.append(_phrase(item, position))
        begin += len(item) + 1
    return tuple(phrases)


def join_phrases(phrases: Sequence[str]) -> str:
    r"""A negative prompt of several phrases, each with or without a weight.

    A comma or semicolon inside a phrase becomes a literal part of it. The result is empty if there are no
    phrases.

    >>> join_phrases(["sad:0.8", "cold, wet"])
    'sad:0.8, cold\\, wet'
    """

    def literal(match: re.Match[str]) -> str:
        """A separator, or a backslash at the end of a phrase, with a backslash before it."""
        return match[0] if len(match[0]) == 2 else f"\\{match[0]}"

    return ", ".join(re.sub(rf"\\.?|[{SEPARATORS}]", literal, phrase, flags=re.DOTALL) for phrase in phrases)


def write_phrases(phrases: Sequence[Phrase]) -> str:
    r"""The negative prompt that `parse_phrases` reads as these phrases.

    >>> write_phrases([Phrase("sad", 0.8), Phrase("top 10", 0.5), Phrase("a, b")])
    'sad:0.8, top 10: 0.5, a\\, b'
    """
    return ", ".join(map(_written, phrases))


def _written(phrase: Phrase) -> str:
    text = re.sub(rf"([\\{SEPARATORS}{COLONS}])", r"\\\1", phrase.text)
    if phrase.weight == 1:
        return text
    space = " " if _NUMBER_AT_END.search(text) else ""
    return f"{text}:{space}{phrase.weight!r}"


def _phrase(item: str, position: str) -> Phrase:
    """Parse one phrase with or without a weight.

    `position` says where the phrase stands in the negative prompt, for error messages.
    """
    phrase, *weights = _split(item, COLONS)
    if len(weights) == 1 and _NUMBER_AT_END.search(phrase) and weights[0][:1].strip():
        phrase, weights = item, []
    phrase = _unescape(phrase).strip()
    if not phrase:
        raise InputError(f"empty phrase {position}; write phrases as in 'ugly:0.8, low resolution'")
    if len(weights) > 1:
        raise InputError(f"more than one colon in {item.strip()!r} {position}; write a literal colon as \\:")
    return Phrase(phrase, _weight(weights[0], position) if weights else 1.0)


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
