"""Metric: which of the given answers a model chooses, in a benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from cfg_lab.metrics.column_info import ANY_LANGUAGE, AT_MOST_0, SHARE, ColumnInfo
from cfg_lab.metrics.text import Choice, Text

_RULES: dict[str, tuple[str, Callable[[Choice], float]]] = {
    "acc": ("guided log-likelihood", lambda choice: choice.guided),
    "acc_norm": ("guided log-likelihood per character", lambda choice: choice.guided / _length(choice)),
    "acc_raw": ("unnormalised guided score", lambda choice: choice.raw),
    "acc_norm_raw": ("unnormalised guided score per character", lambda choice: choice.raw / _length(choice)),
    "acc_pmi": (
        "log p(answer | question) minus log p(answer | negative), which no scale changes",
        lambda choice: choice.positive - choice.negative,
    ),
}
"""Column -> (what the chosen answer has the highest value of, that value)."""


@dataclass(frozen=True, kw_only=True)
class MultipleChoice:
    """Whether the answer with the highest score is right, for several scores.

    acc, acc_norm: lm-eval's metrics of these names, on guided log-likelihoods, which are normalised at each
    token. An item with a single answer, as in LAMBADA, is right if each token of the answer is the likeliest
    one; then all columns but acc and right_log_prob are NaN.
    acc_raw, acc_norm_raw: the same with the score of Sanchez et al. 2023 (arXiv:2306.17806), the sum over
    tokens of scale * positive + (1 - scale) * negative, which is not normalised. NaN for all rules but plain
    classifier-free guidance.
    acc_pmi: the answer with the highest pointwise mutual information with the question; this is the limit of
    acc_raw for a large scale. NaN without negatives.
    majority: accuracy of always choosing the position that is right most often in the cell; for BoolQ this is
    the most frequent label. NaN if the position is right in all items and the answers differ: then the task
    writes the right answer at a fixed position.
    chance: accuracy of a random choice.
    answer_changed: 1 if the answer of acc differs from the one without guidance.
    margin: guided log-likelihood of the right answer minus that of the best wrong one, nats.
    right_log_prob: guided log-likelihood of the right answer, nats.

    All values are NaN for texts that are no answers of a benchmark.
    """

    whole_cell: ClassVar[bool] = True
    columns = MappingProxyType(
        {
            **{
                name: ColumnInfo(
                    meaning=f"share of the items whose answer with the highest {score} is right",
                    better="higher",
                    bounds=SHARE,
                    role="aim" if name in ("acc", "acc_norm") else "other",
                    languages=ANY_LANGUAGE,
                    reference="majority",
                )
                for name, (score, _) in _RULES.items()
            },
            "majority": ColumnInfo(
                meaning="accuracy of always choosing the position that is right most often",
                bounds=SHARE,
                role="other",
                languages=ANY_LANGUAGE,
            ),
            "chance": ColumnInfo(
                meaning="accuracy of a random choice", bounds=SHARE, role="other", languages=ANY_LANGUAGE
            ),
            "answer_changed": ColumnInfo(
                meaning="share of the items whose answer differs from the one without guidance",
                bounds=SHARE,
                role="other",
                languages=ANY_LANGUAGE,
            ),
            "margin": ColumnInfo(
                meaning="guided log-likelihood of the right answer minus that of the best wrong one",
                better="higher",
                role="other",
                languages=ANY_LANGUAGE,
            ),
            "right_log_prob": ColumnInfo(
                meaning="guided log-likelihood of the right answer",
                better="higher",
                bounds=AT_MOST_0,
                role="other",
                languages=ANY_LANGUAGE,
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        majority = _majority_position([text.choices for text in texts if text.choices])
        scores = [_scores(text.choices, majority) for text in texts]
        return {column: [values.get(column, math.nan) for values in scores] for column in self.columns}


def _scores(choices: Sequence[Choice], majority: int | None) -> dict[str, float]:
    """The columns of one item that have a value."""
    if not choices:
        return {}
    right = [choice.guided for choice in choices if choice.right]
    if len(choices) == 1:
        return {"acc": float(choices[0].greedy), "right_log_prob": right[0]}
    wrong = [choice.guided for choice in choices if not choice.right]
    chosen = best([choice.guided for choice in choices])
    values = {
        "chance": len(right) / len(choices),
        "answer_changed": float(chosen != best([choice.positive for choice in choices])),
        "margin": max(right) - max(wrong, default=-math.inf),
        "right_log_prob": max(right),
    }
    if majority is not None:
        values["majority"] = float(majority < len(choices) and choices[majority].right)
    for column, (_, rule) in _RULES.items():
        scores = [rule(choice) for choice in choices]
        if not any(map(math.isnan, scores)):
            values[column] = float(choices[best(scores)].right)
    return values


def best(scores: Sequence[float]) -> int:
    """The number of the highest score; of equal scores, the first, as in lm-eval."""
    return max(range(len(scores)), key=scores.__getitem__)


def _majority_position(items: Sequence[Sequence[Choice]]) -> int | None:
    """The position that is right most often; None if the task always writes the right answer there."""
    positions = range(max(map(len, items), default=0))
    counts = [sum(len(item) > position and item[position].right for item in items) for position in positions]
    if not counts:
        return None
    majority = best(counts)
    same_answers = len({tuple(choice.text for choice in item) for item in items}) == 1
    return None if counts[majority] == len(items) and not same_answers else majority


def _length(choice: Choice) -> int:
    return max(1, len(choice.text))
