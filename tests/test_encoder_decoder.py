"""Encoder-decoder models: the laws of the decoder, on small seeded T5, BART and Marian models."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request, Sampling, load_model
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.errors import InputError
from cfg_lab.guidance import Interval
from cfg_lab.models import EncoderDecoder, LanguageModel, from_transformers
from tests.conftest import VOCABULARY, make_tokenizer
from tests.test_decoder import context, decoded, tokens

LAYERS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 128,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
    "forced_eos_token_id": None,
    "init_std": 0.6,
}
KINDS: dict[str, Callable[[], Any]] = {
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            initializer_factor=3.0,
            pad_token_id=258,
            eos_token_id=257,
            decoder_start_token_id=258,
            tie_word_embeddings=False,
        )
    ),
    "bart": lambda: BartForConditionalGeneration(BartConfig(**LAYERS, decoder_start_token_id=257)),
    "bart, first token forced": lambda: BartForConditionalGeneration(
        BartConfig(**LAYERS, decoder_start_token_id=257, forced_bos_token_id=256)
    ),
    "marian": lambda: MarianMTModel(MarianConfig(**LAYERS, decoder_start_token_id=258)),
}


def make(kind: str) -> Any:
    torch.manual_seed(1)
    return KINDS[kind]().eval()


@pytest.fixture(scope="module", params=list(KINDS))
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return from_transformers(make(request.param), make_tokenizer())


def guided(seed: int, scale: float = 2.0, **changes: Any) -> Request:
    values = {
        "positive": context(seed, 3 + 2 * seed),
        "negatives": (Branch(context(seed + 50, 12 - seed)), Branch((257,), 0.5)),
        "guidance": ClassifierFreeGuidance(scale=scale),
        "max_new_tokens": 12,
    }
    return Request(**{**values, **changes})


def brute_force(model: LanguageModel, one: Request, scale: float) -> list[int]:
    """The formula, without cache or batch."""
    module: Any = model.module
    found: list[int] = []
    while len(found) < one.max_new_tokens:
        rows = [
            module(
                input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[*model.start, *found]])
            ).logits[0, -1]
            for _, ids in [(None, one.positive), *((b.model, b.ids) for b in one.negatives)]
        ]
        own, first, second = (row.log_softmax(-1) for row in rows)
        found.append(int((own + (scale - 1) * ((own - first) / 1.5 + (own - second) * 0.5 / 1.5)).argmax()))
    return found


def test_the_kind_is_found(model: LanguageModel) -> None:
    assert isinstance(model, EncoderDecoder)


def test_unguided_greedy_equals_transformers(model: LanguageModel) -> None:
    for seed in range(4):
        one = Request(positive=context(seed, 3 + 4 * seed), max_new_tokens=15)
        theirs = model.module.generate(
            torch.tensor([one.positive]),
            max_new_tokens=len(model.start) - 1 + 15,
            do_sample=False,
            num_beams=1,
            eos_token_id=None,
        )[0, len(model.start) :].tolist()
        assert list(tokens(model, [one])[0]) == theirs


@torch.inference_mode()
def test_guided_equals_the_formula_by_brute_force(model: LanguageModel) -> None:
    for seed in range(3):
        for scale in (0.0, 1.5, 3.0):
            one = guided(seed, scale)
            assert list(tokens(model, [one])[0]) == brute_force(model, one, scale)


def test_alone_and_in_any_batch(model: LanguageModel) -> None:
    chance = random.Random(0)
    grid = [
        guided(
            seed,
            scale,
            sampling=chance.choice([None, Sampling(temperature=1.3), BeamSearch(width=2)]),
            max_new_tokens=chance.randint(2, 14),
            stop_ids=frozenset(range(0, 256, 17)),
        )
        for seed in range(5)
        for scale in (0.5, 1, 2.5)
    ]
    grid.append(guided(1, guidance=ClassifierFreeGuidance(scale=3, schedule=Interval(begin=2, end=6))))
    alone = [tokens(model, [one])[0] for one in grid]
    for max_rows in (6, 11, 128):
        assert tokens(model, grid, max_rows) == alone


def test_scoring_a_text_is_what_decoding_it_traced(model: LanguageModel) -> None:
    asked = [guided(seed) for seed in range(3)]
    completions = decoded(model, asked)
    traces = Decoder(model).trace_texts(asked, [one.tokens for one in completions])
    for completion, trace in zip(completions, traces, strict=True):
        for name, values in vars(trace).items():
            assert values == pytest.approx(getattr(completion.trace, name), abs=2e-3, nan_ok=True), name


def test_unguided_beams_equal_transformers(model: LanguageModel) -> None:
    one = Request(positive=context(3, 9), sampling=BeamSearch(width=3, n_best=3), max_new_tokens=8)
    (completion,) = decoded(model, [one])
    theirs = model.module.generate(
        torch.tensor([one.positive]), num_beams=3, num_return_sequences=3, eos_token_id=None,
        max_new_tokens=len(model.start) - 1 + 8, do_sample=False,
    )[:, len(model.start) :].tolist()  # fmt: skip
    if len(model.start) == 1:  # where a token is forced, transformers counts it in the length of a text
        assert [list(text.tokens) for text in (completion, *completion.others)] == theirs
    else:
        assert list(completion.tokens) == theirs[0]


def test_the_model_stays_usable(model: LanguageModel) -> None:
    ids = torch.tensor([context(1, 6)])
    fresh = make(next(kind for kind in KINDS if type(make(kind)) is type(model.module)))
    assert torch.equal(
        model.module(input_ids=ids, decoder_input_ids=ids).logits,
        fresh(input_ids=ids, decoder_input_ids=ids).logits,
    )


def test_by_name(tmp_path: Path) -> None:
    make("t5").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    assert isinstance(model, EncoderDecoder)
    one = guided(2)
    assert tokens(model, [one]) == tokens(from_transformers(make("t5"), make_tokenizer()), [one])
    again = replace(one, max_new_tokens=5)
    assert tokens(model, [again])[0] == tokens(model, [one])[0][:5]


def test_positions_that_the_lab_does_not_know_are_refused() -> None:
    other = M2M100ForConditionalGeneration(
        M2M100Config(**{**LAYERS, "pad_token_id": 1}, decoder_start_token_id=257)
    ).eval()
    model = from_transformers(other)
    with pytest.raises(InputError, match=r"M2M100ForConditionalGeneration.* counts positions in a way"):
        model.module  # noqa: B018
    with pytest.raises(InputError, match="counts positions in a way"):  # and stays so
        model.module  # noqa: B018


def test_what_the_decoder_starts_with_is_part_of_a_texts_id() -> None:
    names: set[str] = set()
    for forced in (11, 12):
        module = make("bart, first token forced")
        module.generation_config.forced_bos_token_id = forced
        names.add(guided(1).id(from_transformers(module).fingerprint))
    assert len(names) == 2
