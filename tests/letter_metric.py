"""A metric that is easy to reach: how many letters of a text are an a."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cfg_lab.metrics.column_info import ColumnInfo
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class ShareOfA:
    """Share of the letter a, in [0, 1]; NaN for an empty text."""

    columns = MappingProxyType(
        {"a": ColumnInfo(meaning="share of the letter a", better="higher", bounds=(0, 1), role="aim")}
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {"a": [text.text.count("a") / len(text.text) if text.text else float("nan") for text in texts]}
