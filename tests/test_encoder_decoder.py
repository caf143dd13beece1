"""Encoder-decoder models: the laws of the decoder, on small T5, BART and Marian models with fixed seeds."""

from __future__ import annotations

import json
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
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PegasusXConfig,
    PegasusXForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request, Sampling, load_model
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.errors import InputError
from cfg_lab.guidance import Interval
from cfg_lab.models import EncoderDecoder, LanguageModel, from_transformers
from cfg_lab.models.checkpoint import Checkpoint
from tests.cli import on, sweep
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
T5_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "initializer_factor": 3.0,
    "pad_token_id": 258,
    "eos_token_id": 257,
    "decoder_start_token_id": 258,
    "tie_word_embeddings": False,
}
KINDS: dict[str, Callable[[], Any]] = {
    "t5": lambda: T5ForConditionalGeneration(T5Config(**T5_SHAPE)),
    "bart": lambda: BartForConditionalGeneration(BartConfig(**LAYERS, decoder_start_token_id=257)),
    "bart, first token forced": lambda: BartForConditionalGeneration(
        BartConfig(**LAYERS, decoder_start_token_id=257, forced_bos_token_id=256)
    ),
    "marian": lambda: MarianMTModel(MarianConfig(**LAYERS, decoder_start_token_id=258)),
}
RELATED: dict[str, Callable[[], Any]] = {
    "mt5": lambda: MT5ForConditionalGeneration(MT5Config(**T5_SHAPE)),
    "m2m_100": lambda: M2M100ForConditionalGeneration(
        M2M100Config(**{**LAYERS, "pad_token_id": 1}, decoder_start_token_id=257)
    ),
    "mbart": lambda: MBartForConditionalGeneration(MBartConfig(**LAYERS, decoder_start_token_id=257)),
    "pegasus": lambda: PegasusForConditionalGeneration(PegasusConfig(**LAYERS, decoder_start_token_id=258)),
}
"""Variants of the kinds above: that they are decoded right is tested once."""


def make_pegasus_x() -> Any:
    """A model that counts positions in a way that the lab does not know."""
    torch.manual_seed(1)
    config = PegasusXConfig(**LAYERS, decoder_start_token_id=257, num_global_tokens=2, block_size=4)
    return PegasusXForConditionalGeneration(config).eval()


def make(kind: str) -> Any:
    torch.manual_seed(1)
    return {**KINDS, **RELATED}[kind]().eval()


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


def brute_force(model: LanguageModel, request: Request, scale: float) -> list[int]:
    """Greedy decoding by the formula, without a cache and without a batch."""
    module: Any = model.module
    tokens: list[int] = []
    while len(tokens) < request.max_new_tokens:
        decoder_ids = torch.tensor([[*model.start, *tokens]])
        positive, first, second = (
            module(input_ids=torch.tensor([ids]), decoder_input_ids=decoder_ids).logits[0, -1].log_softmax(-1)
            for ids in (request.positive, *(branch.ids for branch in request.negatives))
        )
        # The weights 1 and 0.5 are divided by their sum.
        push = (positive - first) * 1 / 1.5 + (positive - second) * 0.5 / 1.5
        tokens.append(int((positive + (scale - 1) * push).argmax()))
    return tokens


def test_an_encoder_decoder_is_recognised(model: LanguageModel) -> None:
    assert isinstance(model, EncoderDecoder)


def test_unguided_greedy_equals_transformers(model: LanguageModel) -> None:
    for seed in range(4):
        request = Request(positive=context(seed, 3 + 4 * seed), max_new_tokens=15)
        generated = model.module.generate(
            torch.tensor([request.positive]),
            max_new_tokens=len(model.start) - 1 + 15,
            do_sample=False,
            num_beams=1,
            eos_token_id=None,
        )[0, len(model.start) :].tolist()
        assert list(tokens(model, [request])[0]) == generated


@torch.inference_mode()
def test_guided_equals_the_formula_by_brute_force(model: LanguageModel) -> None:
    for seed in range(3):
        for scale in (0.0, 1.5, 3.0):
            request = guided(seed, scale)
            assert list(tokens(model, [request])[0]) == brute_force(model, request, scale)


@torch.inference_mode()
@pytest.mark.parametrize("kind", RELATED)
def test_related_models_equal_the_formula_by_brute_force(kind: str) -> None:
    model, requests = from_transformers(make(kind)), [guided(seed) for seed in range(3)]
    expected = [brute_force(model, request, 2.0) for request in requests]
    assert [list(decoded_tokens) for decoded_tokens in tokens(model, requests)] == expected


def test_alone_and_in_any_batch(model: LanguageModel) -> None:
    generator = random.Random(0)
    grid = [
        guided(
            seed,
            scale,
            sampling=generator.choice([None, Sampling(temperature=1.3), BeamSearch(width=2)]),
            max_new_tokens=generator.randint(2, 14),
            stop_ids=frozenset(range(0, 256, 17)),
        )
        for seed in range(5)
        for scale in (0.5, 1, 2.5)
    ]
    grid.append(guided(1, guidance=ClassifierFreeGuidance(scale=3, schedule=Interval(begin=2, end=6))))
    alone = [tokens(model, [request])[0] for request in grid]
    for max_rows in (6, 11, 128):
        assert tokens(model, grid, max_rows) == alone


def test_scoring_a_text_gives_the_trace_of_decoding_it(model: LanguageModel) -> None:
    requests = [guided(seed) for seed in range(3)]
    completions = decoded(model, requests)
    traces = Decoder(model).trace_texts(requests, [completion.tokens for completion in completions])
    assert len(completions) == 3
    for completion, trace in zip(completions, traces, strict=True):
        for name, values in vars(trace).items():
            assert values == pytest.approx(getattr(completion.trace, name), abs=2e-3, nan_ok=True), name


def test_unguided_beams_equal_transformers(model: LanguageModel) -> None:
    request = Request(positive=context(3, 9), sampling=BeamSearch(width=3, n_best=3), max_new_tokens=8)
    (completion,) = decoded(model, [request])
    generated = model.module.generate(
        torch.tensor([request.positive]), num_beams=3, num_return_sequences=3, eos_token_id=None,
        max_new_tokens=len(model.start) - 1 + 8, do_sample=False,
    )[:, len(model.start) :].tolist()  # fmt: skip
    if len(model.start) == 1:
        assert [list(text.tokens) for text in (completion, *completion.others)] == generated
    else:  # transformers counts a forced token in the length of a text, so its ranking differs
        assert list(completion.tokens) == generated[0]


def test_the_transformers_model_stays_usable(model: LanguageModel) -> None:
    tokens(model, [guided(1)])
    ids = torch.tensor([context(1, 6)])
    fresh = make(next(kind for kind in KINDS if type(make(kind)) is type(model.module)))
    assert torch.equal(
        model.module(input_ids=ids, decoder_input_ids=ids).logits,
        fresh(input_ids=ids, decoder_input_ids=ids).logits,
    )


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def test_a_folder_decodes_what_the_model_in_memory_decodes(tmp_path: Path) -> None:
    model = load_model(str(save(make("t5"), tmp_path)))
    assert isinstance(model, EncoderDecoder)
    request = guided(2)
    expected = tokens(from_transformers(make("t5"), make_tokenizer()), [request])
    assert tokens(model, [request]) == expected
    shorter = replace(request, max_new_tokens=5)
    assert tokens(model, [shorter])[0] == expected[0][:5]


@pytest.mark.parametrize("kind", [*KINDS, *RELATED])
@pytest.mark.parametrize("generation_config", [True, False])
def test_a_folder_is_planned_without_its_weights(
    kind: str, generation_config: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first tokens of the decoder are read from the files, and are those of the loaded model."""
    original = make(kind)
    expected = from_transformers(original).start
    model = load_model(str(save(original, tmp_path)))
    if not generation_config:  # as in old checkpoints, which have these settings in config.json
        settings = json.loads((tmp_path / "generation_config.json").read_text())
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(settings | config))
        (tmp_path / "generation_config.json").unlink()
        model = load_model(str(tmp_path))
    load = Checkpoint.load

    def refuse(checkpoint: Checkpoint) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(Checkpoint, "load", refuse)
    Decoder(model).check(guided(1))
    assert (model.start, model.vocab_size) == (expected, VOCABULARY)
    assert model.fingerprint.endswith("-".join(map(str, expected)))
    monkeypatch.setattr(Checkpoint, "load", load)
    assert from_transformers(model.module).start == expected


def test_positions_that_the_lab_does_not_know_are_refused() -> None:
    model = from_transformers(make_pegasus_x())
    for _ in range(2):  # a second try is refused, too
        with pytest.raises(InputError, match=r"PegasusXForConditionalGeneration.*forward without a cache"):
            model.module  # noqa: B018


def test_a_sweep_of_a_model_that_cannot_be_used_writes_nothing(tmp_path: Path) -> None:
    folder = save(make_pegasus_x(), tmp_path / "model")
    with pytest.raises(InputError, match="forward without a cache"):
        sweep(*on(tmp_path, folder))
    assert not (tmp_path / "results").exists()


def test_the_first_tokens_of_the_decoder_are_part_of_the_id_of_a_text() -> None:
    ids: set[str] = set()
    for forced in (11, 12):
        module = make("bart, first token forced")
        module.generation_config.forced_bos_token_id = forced
        ids.add(guided(1).id(from_transformers(module).fingerprint))
    assert len(ids) == 2
