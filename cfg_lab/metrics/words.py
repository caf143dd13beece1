"""Splits a text into words, for metrics that count them."""

from __future__ import annotations

import re


def words(text: str) -> list[str]:
    """Lower-cased words of letters and digits; an apostrophe inside a word belongs to the word ("don't")."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())
