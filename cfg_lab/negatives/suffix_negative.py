"""The negative context is the positive context, continued by a short text."""

from __future__ import annotations

from dataclasses import dataclass

from cfg_lab.decoding.request import Branch
from cfg_lab.errors import InputError
from cfg_lab.negatives.negative import Negative, PromptEncoder
from cfg_lab.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class SuffixNegative(Negative):
    """The negative context is the prompt plus a short text that announces a bad answer.

    Source: MTI (arXiv:2510.13940).

    The token ids are those of the positive context, followed by those of the suffix. So the decoder computes
    keys and values of the prompt once for both branches.

    For a chat model the suffix stands after the generation prompt, at the start of the answer. For a model
    without a chat template it directly follows the text of the prompt. For an encoder-decoder model it
    follows the source and its end token.

    MTI appends the suffix anew at every step, after the tokens generated so far. Here the suffix stays in
    front of these tokens, as in every other negative context. At the first new token both ways give the same
    distribution.

    Args:
        suffix: the text, tokenised by itself and without special tokens. Begin it with a space where the
            prompt of a model without a chat template ends in a word.
    """

    suffix: str = "OUTPUT ERROR"

    def __post_init__(self) -> None:
        if not isinstance(self.suffix, str) or not self.suffix:
            raise InputError(f"negatives.suffix must be a text that is not empty, got {self.suffix!r}")

    def branches(self, prompt: Prompt, model: PromptEncoder) -> tuple[Branch, ...]:
        positive = model.encode(prompt.text, prompt.system)
        return (Branch((*positive, *model.encode_suffix(self.suffix))),)
