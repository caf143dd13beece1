"""The laws once on the real model."""

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


def decode(model: LanguageModel, asked: list[Request], max_rows: int = 128) -> list[tuple[int, ...]]:
    found = {
        id(completion.request): completion.tokens for completion in Decoder(model, max_rows).decode(asked)
    }
    return [found[id(one)] for one in asked]


def test_greedy_equals_transformers_one_prompt_at_a_time(model: LanguageModel) -> None:
    asked = requests(model)
    for one, ours in zip(asked, decode(model, asked), strict=True):
        assert one.guidance is not None
        scale = one.guidance.scale_at(0)
        positive = one.negatives[0].ids if scale == 0 else one.positive
        guided: dict[str, Any] = (
            {"guidance_scale": scale, "negative_prompt_ids": torch.tensor([one.negatives[0].ids])}
            if scale > 1
            else {}
        )
        ids = torch.tensor([positive])
        theirs = model.module.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, **guided
        )[0, ids.shape[1] :]
        assert list(ours) == theirs.tolist()


def test_batches_change_nothing(model: LanguageModel) -> None:
    for sampling in (None, Sampling(temperature=0.8, top_p=0.95)):
        asked = requests(model, sampling=sampling)
        together = decode(model, asked)
        assert decode(model, asked[::-1], max_rows=5)[::-1] == together
        assert decode(model, asked[2:3]) == together[2:3]


def test_weighted_negatives_equal_brute_force(model: LanguageModel) -> None:
    positive = model.encode(PROMPTS[0])
    negatives = [model.encode("Be boring."), model.encode("Be sad."), model.bos]
    weights = [0.8, 1.0, -0.5]
    one = Request(
        positive=positive,
        negatives=tuple(Branch(ids, weight) for ids, weight in zip(negatives, weights, strict=True)),
        guidance=ClassifierFreeGuidance(scale=1.7),
        max_new_tokens=10,
    )
    expected = reference.decode(model.module, positive, negatives, weights, 1.7, 10)
    assert list(decode(model, [one])[0]) == expected


def test_contrastive_decoding_equals_brute_force(model: LanguageModel) -> None:
    amateur = cfg_lab.load_model("smollm2", skip_layers=[16, 22])
    positive = model.encode(PROMPTS[0])
    one = Request(
        positive=positive,
        negatives=(Branch(positive, 1.0, "amateur"),),
        guidance=ContrastiveDecoding(),
        max_new_tokens=10,
    )
    (completion,) = Decoder(model, other_models={"amateur": amateur}).decode([one])
    modules = {None: model.module, "amateur": amateur.module}
    assert list(completion.tokens) == reference.decode_by(one.guidance, one, modules)


def test_guided_beams_equal_generate_with_the_processor(model: LanguageModel) -> None:
    rule = ClassifierFreeGuidance(scale=1.5)
    asked = [
        Request(
            positive=model.encode(text),
            negatives=(Branch(model.encode(f"{text} Be boring.")),),
            guidance=rule,
            sampling=BeamSearch(width=3),
            max_new_tokens=12,
        )
        for text in PROMPTS[:2]
    ]
    found = {id(one.request): list(one.tokens) for one in Decoder(model).decode(asked)}
    width = max(len(one.positive) for one in asked)
    ids = torch.tensor([[2] * (width - len(one.positive)) + list(one.positive) for one in asked])
    mask = torch.tensor([[0] * (width - len(one.positive)) + [1] * len(one.positive) for one in asked])
    processor = GuidanceLogitsProcessor(model.module, [one.negatives[0].ids for one in asked], rule)
    theirs = model.module.generate(
        ids,
        attention_mask=mask,
        logits_processor=[processor],
        num_beams=3,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=2,
    )[:, width:].tolist()
    assert [found[id(one)] for one in asked] == theirs


def test_the_articles_three_lines(model: LanguageModel) -> None:
    text = cfg_lab.generate(
        model, PROMPTS[0], negative="boring:0.8, cliche, predictable:0.5", scale=1.5, max_new_tokens=40
    )
    assert len(text.split()) > 10
