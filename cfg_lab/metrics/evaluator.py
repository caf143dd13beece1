"""How likely a text is to another model, which had no part in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cfg_lab.metrics.text import Text
from cfg_lab.prompts import Prompt

Evaluate = Callable[[Sequence[tuple[Prompt, str]]], list[list[float]]]
"""From prompts and texts to the log-probs of each text's tokens, nats; [] for a text too long for it."""


@dataclass(frozen=True)
class Evaluator:
    """Perplexity of the new text given the prompt under an independent model, by teacher forcing.

    evaluator_perplexity: exp of the mean negative log-prob a token of the evaluator; at least 1.
    evaluator_bits_per_byte: the summed negative log2-prob over the text's UTF-8 bytes; at least 0. Compare
    evaluators by this one, for their tokens differ.

    A generator is sure of its own texts: guided ones are compared more fairly by a model that wrote none.
    NaN for empty texts and for those longer than the evaluator can see.

    Args:
        model: an option of conf/model, a folder or a hub id.
        loader: (model, separator) -> the function that evaluates.
        separator: between prompt and text for an evaluator without chat template, where the text does not
            begin with white space itself; "" for continuations of a base model.
        column: begins the names of the columns.
    """

    model: str
    loader: Callable[[str, str], Evaluate] = field(repr=False)
    separator: str = "\n"
    column: str = "evaluator"

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        evaluate = self.loader(self.model, self.separator)
        written = [text for text in texts if text.text]
        found = iter(evaluate([(text.prompt, text.text) for text in written]))
        log_probs = [next(found) if text.text else [] for text in texts]
        return {
            f"{self.column}_perplexity": [
                math.exp(-sum(spoken) / len(spoken)) if spoken else math.nan for spoken in log_probs
            ],
            f"{self.column}_bits_per_byte": [
                -sum(spoken) / math.log(2) / len(text.text.encode()) if spoken else math.nan
                for text, spoken in zip(texts, log_probs, strict=True)
            ],
        }
