"""Texts of new tokens: a text that follows a context keeps its leading space."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cfg_lab import Decoder, Prompt, Request
from cfg_lab.metrics import Perplexity
from cfg_lab.metrics.likelihood import perplexity
from cfg_lab.models import LanguageModel, from_transformers, load_model
from cfg_lab.models.evaluator import log_probs
from cfg_lab.models.tokenization.detokenizer import Detokenizer
from tests.conftest import SHAPE
from tests.texts import text
from tests.tokenizer_kinds import KINDS, SPECIAL

REVERSIBLE = [kind for kind in KINDS if kind != "WordPiece"]  # WordPiece does not keep line breaks
CHANGED = ["Llama 2", "Metaspace first", "Metaspace always", "Metaspace never", "unigram", "WordPiece"]
"""Tokenizers that remove the leading space of a text."""


@cache
def tokenizer_of(kind: str) -> Any:
    return KINDS[kind]()


def whole(tokenizer: Any, tokens: list[int]) -> str:
    """The text of a context with its new tokens."""
    return tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def model_of(kind: str) -> LanguageModel:
    """A random Llama with a tokenizer of this kind."""
    tokenizer = tokenizer_of(kind)
    torch.manual_seed(0)
    config = LlamaConfig(**{**SHAPE, "vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2})
    return from_transformers(LlamaForCausalLM(config).eval(), tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_context_and_the_text_of_its_new_tokens_are_the_text_of_all_tokens(kind: str) -> None:
    """Law: decode(context + new) == decode(context) + text, for all new tokens, special ones included."""
    tokenizer = tokenizer_of(kind)
    detokenizer, chance = Detokenizer(tokenizer), random.Random(0)
    for _ in range(400):
        words = chance.choice(["the cat", "It's", "a", "dog ran after"])
        context = tokenizer(words, add_special_tokens=False).input_ids
        new = chance.choices(range(len(tokenizer)), k=chance.randint(0, 6))
        assert whole(tokenizer, context + new) == whole(tokenizer, context) + detokenizer.decode(new)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_of_a_text_are_the_text(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    detokenizer = Detokenizer(tokenizer)
    tokens = tokenizer("sat on the mat, again and again", add_special_tokens=False).input_ids
    assert "".join(map(detokenizer.piece, tokens)) == detokenizer.decode(tokens)
    assert [detokenizer.piece(token).strip() for token in range(len(SPECIAL))] == SPECIAL


@pytest.mark.parametrize("kind", REVERSIBLE)
@pytest.mark.parametrize("prompt", ["the cat", "It's fine!"])
@pytest.mark.parametrize(
    "words", [" sat on the mat", "sat", " a\n\nYes", "\n", "  two", "ther", " été", "!", " 12", "12", " 我们"]
)
def test_a_text_that_is_encoded_after_a_context_is_decoded_as_itself(
    kind: str, prompt: str, words: str
) -> None:
    """Law: decode(context + encode_suffix(text)) == decode(context) + text."""
    model = model_of(kind)
    context = list(model.encode(prompt))
    suffix = list(model.encode_suffix(words))
    assert whole(model.tokenizer, context + suffix) == whole(model.tokenizer, context) + words
    assert model.decode(suffix) == words


@pytest.mark.parametrize("kind", KINDS)
def test_the_evaluator_scores_the_tokens_that_were_generated(kind: str) -> None:
    """Law: a model that evaluates its own text gives it the perplexity that it had while it was decoded."""
    model = model_of(kind)
    texts = {token: model.decode([token]) for token in range(len(model.tokenizer))}
    # Some tokens are bytes that are no text, or are never used for their text.
    texts = {
        token: words for token, words in texts.items() if words and model.encode_suffix(words) == (token,)
    }
    assert sum(words.startswith(" ") for words in texts.values()) >= 5
    request = Request(positive=model.encode("the cat"))
    traces = Decoder(model).trace_texts([request] * len(texts), [[token] for token in texts])
    prompt = Prompt(id="1", text="the cat")
    scored = log_probs(model, [(prompt, words) for words in texts.values()], separator="")
    assert [values[0] for values in scored] == pytest.approx(
        [trace.positive[0] for trace in traces], abs=1e-4
    )


def test_the_perplexity_of_a_text_with_a_leading_space() -> None:
    model = model_of("Llama 2")
    context, tokens = model.encode("the cat"), model.encode_suffix(" sat on the mat")
    (trace,) = Decoder(model).trace_texts([Request(positive=context)], [tokens])
    words = model.decode(tokens)
    assert words == " sat on the mat"
    (scored,) = log_probs(model, [(Prompt(id="1", text="the cat"), words)], separator="\n")
    expected = Perplexity().score([text(words, tokens=tokens, log_probs=trace.positive)])["perplexity"]
    assert [perplexity(scored)] == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_only_models_whose_texts_have_changed_have_another_fingerprint(kind: str) -> None:
    """So old texts without their leading space are never compared with new ones."""
    model = model_of(kind)
    assert model.fingerprint == model.source.fingerprint() + ("-spaces" if kind in CHANGED else "")


def test_the_fingerprint_of_the_tests_own_folder_is_that_of_its_files(tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder))
    assert model.fingerprint == model.source.fingerprint()
