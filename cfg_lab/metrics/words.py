"""Words of a text, for metrics that count them."""

from __future__ import annotations

import re


def words(text: str) -> list[str]:
    """Lower-cased words: letters and digits, with apostrophes inside ("don't" is one)."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())
