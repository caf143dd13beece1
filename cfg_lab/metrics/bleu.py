"""BLEU and chrF of two sentences in any language, by sacrebleu."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, cast

import regex

from cfg_lab.errors import InputError
from cfg_lab.metrics.words import is_character_word, words

_HAN = cast("Any", regex).compile(r"\p{Han}")
"""One Chinese character."""


def load_bleu(tokenize: str = "auto") -> Callable[[str, str], float]:
    """A function that takes a text and one reference, and returns the text's BLEU, in [0, 1].

    It is sacrebleu's BLEU of one sentence, with effective order and exponential smoothing.

    Args:
        tokenize: a tokenizer of sacrebleu, or "auto" for `tokenizer_for` each reference.

    Raises:
        InputError: sacrebleu has no such tokenizer, or the tokenizer needs a package that is not installed.
    """
    fixed = None if tokenize == "auto" else _load_metric(tokenize)

    def bleu(text: str, reference: str) -> float:
        return _score(fixed or _load_metric(tokenizer_for(reference)), text, reference)

    return bleu


def load_chrf() -> Callable[[str, str], float]:
    """A function that takes a text and one reference, and returns the text's chrF, in [0, 1]."""
    from sacrebleu.metrics.chrf import CHRF

    return partial(_score, CHRF())


def _score(metric: Any, text: str, reference: str) -> float:
    text, reference = (unicodedata.normalize("NFC", string) for string in (text, reference))
    return metric.sentence_score(text, [reference]).score / 100


@lru_cache(maxsize=65_536)
def tokenizer_for(reference: str) -> str:
    """The name of sacrebleu's tokenizer for the script of a reference.

    "13a" if at least half of the words are separated by spaces; else "zh" for Chinese, and "char" (each
    character is a token) for Japanese, Thai, Lao, Khmer and Burmese. It does not depend on what is installed.
    """
    words_of_reference = words(reference)
    characters = [word for word in words_of_reference if is_character_word(word)]
    if 2 * len(characters) <= len(words_of_reference):
        return "13a"
    return "zh" if all(map(_HAN.match, characters)) else "char"


@lru_cache
def _load_metric(tokenize: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        raise InputError(
            f"metrics: tokenize must be auto or one of {', '.join(BLEU.TOKENIZERS)}, got {tokenize!r}"
        )
    try:
        return BLEU(effective_order=True, tokenize=tokenize)
    except Exception as error:  # each tokenizer fails in its own way; its last line says what to install
        reason = " ".join(str(error).split())
        raise InputError(f"metrics: tokenize is {tokenize!r}, which cannot be loaded: {reason}") from error
