"""Metric: the likelihood of a text under a model that did not write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from cfg_lab.metrics.column_info import ANY_LANGUAGE, AT_LEAST_0, AT_LEAST_1, ColumnInfo
from cfg_lab.metrics.likelihood import bits_per_byte, perplexity
from cfg_lab.metrics.text import Text
from cfg_lab.prompts import Prompt

Evaluate = Callable[[Sequence[tuple[Prompt, str]]], list[list[float]]]
"""From (prompt, text) pairs to the log-probs of each text's tokens, nats. [] for a text that is too long."""

_PERPLEXITY = ColumnInfo(
    meaning="how unexpected the text is to another, independent model; 1 is certain",
    better="lower",
    bounds=AT_LEAST_1,
    role="fluency",
    rank=2,
    languages=ANY_LANGUAGE,
)
_BITS_PER_BYTE = ColumnInfo(
    meaning="bits for each byte of text under another, independent model",
    better="lower",
    bounds=AT_LEAST_0,
    role="fluency",
    rank=2,
    languages=ANY_LANGUAGE,
)


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Perplexity of the new text, given the prompt, under an independent model (by teacher forcing).

    evaluator_perplexity: exp of the mean negative log-prob per token of the evaluator, at least 1.
    evaluator_bits_per_byte: the summed negative log2-prob divided by the text's number of UTF-8 bytes, at
    least 0. Use this column to compare evaluators, because their tokens differ.

    A model gives a high probability to texts of its own. So a model that wrote none of the texts compares
    guided texts more fairly. NaN for empty texts and for texts longer than the evaluator's context.

    Args:
        model: an option of conf/model, a folder or a hub id.
        loader: takes `model` and `separator`, and returns the function that computes log-probs.
        separator: written between prompt and text if the evaluator has no chat template and the text does not
            begin with white space. Use "" for continuations by a base model.
        column: the beginning of the names of both columns, "evaluator" by default.
    """

    column_patterns = MappingProxyType(
        {
            "evaluator*_perplexity": _PERPLEXITY,
            "evaluator*_bits_per_byte": _BITS_PER_BYTE,
        }
    )
    version: ClassVar[int] = 2  # 1 scored some texts with a space before them that they do not have
    model: str
    loader: Callable[[str, str], Evaluate] = field(repr=False)
    separator: str = "\n"
    column: str = "evaluator"

    @property
    def columns(self) -> Mapping[str, ColumnInfo]:
        return {f"{self.column}_perplexity": _PERPLEXITY, f"{self.column}_bits_per_byte": _BITS_PER_BYTE}

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        evaluate = self.loader(self.model, self.separator)
        pairs = [(text.prompt, text.text) for text in texts if text.text]
        evaluated = iter(evaluate(pairs))
        log_probs = [next(evaluated) if text.text else [] for text in texts]
        return {
            f"{self.column}_perplexity": [perplexity(values) for values in log_probs],
            f"{self.column}_bits_per_byte": [
                bits_per_byte(values, text.text) for text, values in zip(texts, log_probs, strict=True)
            ],
        }
