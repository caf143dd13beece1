"""The most important laws of the decoder, once on the real model (SmolLM2)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cfg_lab
from cfg_lab import (
    BeamSearch,
    Branch,
    ClassifierFreeGuidance,
    Decoder,
    GuidanceLogitsProcessor,
    Request,
    Sampling,
)
from cfg_lab.guidance import ContrastiveDecoding
from cfg_lab.models import LanguageModel
from tests import reference

pytestmark = pytest.mark.real
PROMPTS = [
    "Write a story about a brave knight.",
    "What is the capital of France?",
    "Describe a photo of a cat.",
]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return cfg_lab.load_model("smollm2")


def requests(model: LanguageModel, **changes: Any) -> list[Request]:
    """Every prompt at four scales, guided away from the prompt with two adjectives."""
    values: dict[str, Any] = {"max_new_tokens": 24, "stop_ids": model.stop_ids, **changes}
    return [
        Request(
            positive=model.encode(text),
            negatives=(Branch(model.encode(f"{text} It should be boring, sad.")),),
            guidance=ClassifierFreeGuidance(scale=scale),
            **values,
        )
        for text in PROMPTS
        for scale in (0, 1, 1.5, 3)
    ]


def decode(model: LanguageModel, requests: list[Request], max_rows: int = 128) -> list[tuple[int, ...]]:
    """The tokens of each request, in the order of the requests."""
    completions = Decoder(model, max_rows).decode(requests)
    tokens = {id(completion.request): completion.tokens for completion in completions}
    return [tokens[id(request)] for request in requests]


def test_greedy_equals_transformers_one_prompt_at_a_time(model: LanguageModel) -> None:
    grid = requests(model)
    for request, tokens in zip(grid, decode(model, grid), strict=True):
        assert request.guidance is not None
        scale = request.guidance.scale_at(0)
        negative = request.negatives[0].ids
        positive = negative if scale == 0 else request.positive
        guided: dict[str, Any] = (
            {"guidance_scale": scale, "negative_prompt_ids": torch.tensor([negative])} if scale > 1 else {}
        )
        ids = torch.tensor([positive])
        generated = model.module.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, **guided
        )[0, ids.shape[1] :]
        assert list(tokens) == generated.tolist()


def test_batches_change_nothing(model: LanguageModel) -> None:
    for sampling in (None, Sampling(temperature=0.8, top_p=0.95)):
        grid = requests(model, sampling=sampling)
        in_one_batch = decode(model, grid)
        assert decode(model, grid[::-1], max_rows=5)[::-1] == in_one_batch
        assert decode(model, grid[2:3]) == in_one_batch[2:3]


def test_weighted_negatives_equal_brute_force(model: LanguageModel) -> None:
    positive = model.encode(PROMPTS[0])
    negatives = [model.encode("Be boring."), model.encode("Be sad."), model.bos]
    weights = [0.8, 1.0, -0.5]
    request = Request(
        positive=positive,
        negatives=tuple(Branch(ids, weight) for ids, weight in zip(negatives, weights, strict=True)),
        guidance=ClassifierFreeGuidance(scale=1.7),
        max_new_tokens=10,
    )
    expected = reference.decode(model.module, positive, negatives, weights, 1.7, 10)
    assert list(decode(model, [request])[0]) == expected


def test_contrastive_decoding_equals_brute_force(model: LanguageModel) -> None:
    amateur = cfg_lab.load_model("smollm2", skip_layers=[16, 22])
    positive = model.encode(PROMPTS[0])
    request = Request(
        positive=positive,
        negatives=(Branch(positive, 1.0, "amateur"),),
        guidance=ContrastiveDecoding(),
        max_new_tokens=10,
    )
    (completion,) = Decoder(model, other_models={"amateur": amateur}).decode([request])
    modules = {None: model.module, "amateur": amateur.module}
    assert list(completion.tokens) == reference.decode_by(request.guidance, request, modules)


def test_guided_beams_equal_generate_with_the_processor(model: LanguageModel) -> None:
    rule = ClassifierFreeGuidance(scale=1.5)
    searches = [
        Request(
            positive=model.encode(text),
            negatives=(Branch(model.encode(f"{text} Be boring.")),),
            guidance=rule,
            sampling=BeamSearch(width=3),
            max_new_tokens=12,
        )
        for text in PROMPTS[:2]
    ]
    contexts = [search.positive for search in searches]
    width = max(map(len, contexts))
    ids = torch.tensor([[2] * (width - len(context)) + list(context) for context in contexts])
    mask = torch.tensor([[0] * (width - len(context)) + [1] * len(context) for context in contexts])
    negatives = [search.negatives[0].ids for search in searches]
    processor = GuidanceLogitsProcessor(model.module, negatives, rule)
    generated = model.module.generate(
        ids,
        attention_mask=mask,
        logits_processor=[processor],
        num_beams=3,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=2,
    )[:, width:].tolist()
    assert [list(tokens) for tokens in decode(model, searches)] == generated


def test_generate_decodes_weighted_phrases(model: LanguageModel) -> None:
    texts = [
        cfg_lab.generate(
            model, PROMPTS[0], negative="boring:0.8, cliche, predictable:0.5", scale=scale, max_new_tokens=40
        )
        for scale in (1, 1.5)
    ]
    assert all(len(text.split()) > 10 for text in texts)
    assert texts[0] != texts[1]
