"""Descriptions of columns of scores: what a metric declares about each column that it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from cfg_lab.errors import InputError

Direction = Literal["higher", "lower"]
Bounds = tuple[float, float]
Role = Literal["aim", "fluency", "diversity", "toxicity", "relevance", "other"]

SHARE: Bounds = (0, 1)
COSINE: Bounds = (-1, 1)
AT_LEAST_0: Bounds = (0, math.inf)
AT_LEAST_1: Bounds = (1, math.inf)
AT_MOST_0: Bounds = (-math.inf, 0)
UNBOUNDED: Bounds = (-math.inf, math.inf)

ANY_LANGUAGE = "any"
ENGLISH = "English"


@dataclass(frozen=True, kw_only=True)
class ColumnInfo:
    """What tables, figures and the page need to know about one column of scores.

    Attributes:
        meaning: what the column measures, as one phrase without a full stop. "" if that is not known.
        better: which values are good. None if neither direction is good, as for a length.
        bounds: the least and the greatest possible mean of the column. Confidence intervals end at these
            bounds.
        role: what the column stands for on the page.
            "aim": the quality that guidance should change, such as sentiment.
            "fluency", "diversity", "toxicity", "relevance": a family of columns that guidance can make
            worse. One column of each family is in the main comparison.
            "other": shown, but not in the main comparison. A column without a direction is always "other".
        rank: a number that orders the columns with the same role. Of a family, the column with the lowest
            rank is in the main comparison. Of the aims, the column with the lowest rank gives the page its
            question.
        languages: the languages of the texts that the column is for: "any", or a phrase such as "English".
            "" if that is not known.
        reference: name of the column that a reader compares this column with, such as the accuracy of a
            constant answer. "" if there is none.

    Raises:
        InputError: an argument does not have one of the values above.
    """

    meaning: str = ""
    better: Direction | None = None
    bounds: Bounds = UNBOUNDED
    role: Role = "aim"
    rank: int = 0
    languages: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        if self.better not in (*get_args(Direction), None):
            raise InputError(f"metrics: better must be higher, lower or null, got {self.better!r}")
        if self.role not in get_args(Role):
            raise InputError(f"metrics: role must be one of {', '.join(get_args(Role))}, got {self.role!r}")
        low, high = self.bounds
        if not low < high:
            raise InputError(f"metrics: bounds must be (least, greatest), got {self.bounds}")
