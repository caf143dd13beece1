"""Rules inside generate of transformers give what the lab's decoder gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, GuidanceLogitsProcessor, Request
from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.errors import InputError
from cfg_lab.guidance import (
    EntropyGate,
    Interval,
    KLBudget,
    Plausibility,
    Rescale,
    StopOnAgreement,
    UnionGuidance,
)
from cfg_lab.models import LanguageModel
from tests.test_decoder import context, decoded, tokens
from tests.test_rules_in_the_decoder import rule_label

PROMPTS = [context(1, 9), context(2, 4), context(3, 14)]
NEGATIVES = [
    [context(11, 5), context(12, 12)],
    [context(13, 1), context(14, 6)],
    [context(15, 20), context(16, 2)],
]
WEIGHTS = [1.0, 0.5]
RULES = [
    ClassifierFreeGuidance(scale=2),
    ClassifierFreeGuidance(scale=3, schedule=Interval(begin=2, end=6)),
    UnionGuidance(scale=4, adaptive=KLBudget(nats=0.5), modifiers=(Plausibility(),)),
    ClassifierFreeGuidance(scale=4, adaptive=EntropyGate(), modifiers=(Rescale(),)),
]


def generate(model: LanguageModel, rule: Any, prompts: list[int], **arguments: Any) -> list[list[int]]:
    """New tokens of generate on left-padded prompts, with the processor; prompts are numbers in PROMPTS."""
    width = max(len(PROMPTS[p]) for p in prompts)
    ids = torch.tensor([[258] * (width - len(PROMPTS[p])) + list(PROMPTS[p]) for p in prompts])
    mask = torch.tensor([[0] * (width - len(PROMPTS[p])) + [1] * len(PROMPTS[p]) for p in prompts])
    processor = GuidanceLogitsProcessor(model.module, [NEGATIVES[p] for p in prompts], rule, WEIGHTS)
    out = model.module.generate(
        ids,
        attention_mask=mask,
        logits_processor=[processor],
        max_new_tokens=10,
        eos_token_id=None,
        pad_token_id=258,
        **{"do_sample": False, **arguments},
    )
    return out[:, width:].tolist()


def decode(model: LanguageModel, rule: Any, prompts: list[int], sampling: Any = None) -> list[Completion]:
    """Completions of the lab's decoder for the same prompts and negatives."""
    requests = [
        Request(
            positive=PROMPTS[p],
            negatives=tuple(Branch(ids, w) for ids, w in zip(NEGATIVES[p], WEIGHTS, strict=True)),
            guidance=rule,
            sampling=sampling,
            max_new_tokens=10,
        )
        for p in prompts
    ]
    return decoded(model, requests)


@pytest.mark.parametrize("rule", RULES, ids=rule_label)
def test_batches_equal_the_decoder(tiny: LanguageModel, rule: Any) -> None:
    expected = [list(completion.tokens) for completion in decode(tiny, rule, [0, 1, 2])]
    assert generate(tiny, rule, [0, 1, 2]) == expected
    assert generate(tiny, rule, [2]) == expected[2:]


@pytest.mark.parametrize("rule", RULES, ids=rule_label)
def test_beams_equal_the_decoder(tiny: LanguageModel, rule: Any) -> None:
    search = BeamSearch(width=4, n_best=2)
    expected = [
        list(text.tokens)
        for completion in decode(tiny, rule, [0, 1, 2], search)
        for text in (completion, *completion.others)
    ]
    assert generate(tiny, rule, [0, 1, 2], num_beams=4, num_return_sequences=2) == expected


def test_several_samples_per_prompt(tiny: LanguageModel) -> None:
    """The distribution of each sample's step is the decoder's, whatever tokens were drawn before."""
    rule = ClassifierFreeGuidance(scale=2)
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Recorded(GuidanceLogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            calls.append((input_ids, super().__call__(input_ids, scores)))
            return calls[-1][1]

    torch.manual_seed(0)
    tiny.module.generate(
        torch.tensor([PROMPTS[0]]),
        attention_mask=torch.ones(1, 9, dtype=torch.long),
        logits_processor=[Recorded(tiny.module, [NEGATIVES[0]], rule, WEIGHTS)],
        num_return_sequences=5,
        do_sample=True,
        max_new_tokens=6,
        eos_token_id=None,
        pad_token_id=258,
    )
    assert len(calls) == 6
    request = Request(
        positive=PROMPTS[0],
        negatives=tuple(Branch(ids, w) for ids, w in zip(NEGATIVES[0], WEIGHTS, strict=True)),
        guidance=rule,
    )
    rows, distributions = calls[-1]
    assert len({tuple(row) for row in rows.tolist()}) > 1
    for row, distribution in zip(rows.tolist(), distributions, strict=True):
        for token in distribution.topk(3).indices.tolist():
            (trace,) = Decoder(tiny).trace_texts([request], [[*row[9:], token]])
            assert float(distribution[token]) == pytest.approx(trace.guided[-1], abs=1e-3)


def test_one_negative_needs_no_brackets(tiny: LanguageModel) -> None:
    ids = torch.tensor([PROMPTS[0]])
    processor = GuidanceLogitsProcessor(tiny.module, [list(NEGATIVES[0][0])], ClassifierFreeGuidance(scale=2))
    out = tiny.module.generate(
        ids, attention_mask=torch.ones_like(ids), logits_processor=[processor], max_new_tokens=8,
        do_sample=False, eos_token_id=None, pad_token_id=258,
    )[0, 9:].tolist()  # fmt: skip
    request = Request(
        positive=PROMPTS[0],
        negatives=(Branch(NEGATIVES[0][0]),),
        guidance=ClassifierFreeGuidance(scale=2),
        max_new_tokens=8,
    )
    assert out == list(tokens(tiny, [request])[0])


def test_bad_arguments_are_named(rotary: LanguageModel) -> None:
    with pytest.raises(InputError, match="contexts of at least one token id"):
        GuidanceLogitsProcessor(rotary.module, [[]])
    with pytest.raises(InputError, match="equally many for each prompt"):
        GuidanceLogitsProcessor(rotary.module, [[[1], [2]], [[1]]])
    with pytest.raises(InputError, match="weights must be one for each of 1 negatives"):
        GuidanceLogitsProcessor(rotary.module, [[1]], weights=[1, 2])
    with pytest.raises(InputError, match=r"guidance\.stopping works in .* got StopOnAgreement"):
        GuidanceLogitsProcessor(rotary.module, [[1]], ClassifierFreeGuidance(stopping=StopOnAgreement()))
    processor = GuidanceLogitsProcessor(rotary.module, [[1], [2]])
    with pytest.raises(InputError, match="negatives of 2 prompts do not fit the 3 rows"):
        processor(torch.ones(3, 4, dtype=torch.long), torch.zeros(3, 259))
    processor = GuidanceLogitsProcessor(rotary.module, [[1]])
    processor(torch.ones(1, 4, dtype=torch.long), torch.zeros(1, 259))
    with pytest.raises(InputError, match="make a new processor for each call of generate"):
        processor(torch.zeros(1, 5, dtype=torch.long), torch.zeros(1, 259))
