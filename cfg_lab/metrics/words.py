"""Splits a text of any language into words, for metrics that count or compare them."""

from __future__ import annotations

import unicodedata
from typing import Any, cast

import regex

# Letters of scripts that are written without spaces between words. 〇 is a number to Unicode, not a letter.
_UNSPACED = (
    r"[[\p{L}〇]&&[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Thai}\p{scx=Lao}\p{scx=Khmr}\p{scx=Mymr}]]"
)
_CHARACTER = rf"(?={_UNSPACED})\X\p{{M}}*"  # with its vowel signs and tone marks
_BEGIN = rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}]"
_RUN = rf"{_BEGIN}[[\p{{L}}\p{{N}}\p{{M}}\p{{Join_Control}}]--{_UNSPACED}]*"
# Apostrophes (don't), the middle dot of Catalan (col·lecció), and the signs of Hebrew abbreviations (צה״ל).
_INSIDE = "['’·׳״]"

_regex = cast("Any", regex)
_CHARACTERS = _regex.compile(_CHARACTER, _regex.V1)
_WORDS = _regex.compile(rf"{_CHARACTER}|{_RUN}(?:{_INSIDE}{_RUN})*", _regex.V1)


def words(text: str) -> list[str]:
    """Lower-cased words of letters and digits, with their accents and vowel signs.

    An apostrophe inside a word belongs to the word ("don't"). A hyphen separates words.

    Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without spaces, and finding words needs a
    dictionary. So each of their characters counts as a word, as is usual for Chinese (sacrebleu's tokenizer
    "zh").

    Both Unicode forms of a text, with accents as separate characters (NFD) or not (NFC), have the same words.

    >>> words("Don't panic: 3.5 cafés")
    ["don't", 'panic', '3', '5', 'cafés']
    >>> words("हिन्दी 我用iPhone")
    ['हिन्दी', '我', '用', 'iphone']
    """
    return [match[0] for match in _WORDS.finditer(unicodedata.normalize("NFC", text).lower())]


def space_out(text: str) -> str:
    """Put a space before and after each character of scripts without spaces, so that `split` finds its words.

    >>> space_out("我用iPhone。").split()
    ['我', '用', 'iPhone。']
    """
    return _CHARACTERS.sub(r" \g<0> ", text)


def is_character_word(word: str) -> bool:
    """Whether a word of `words` is one character of a script without spaces."""
    return _CHARACTERS.fullmatch(word) is not None
