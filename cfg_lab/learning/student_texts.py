"""The texts that a student reads while it is trained, and what its teacher says of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.measurements import divergence
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.teacher_forcing import ScalePlan, guide_text
from cfg_lab.decoding.text_logits import GivenText, text_logits
from cfg_lab.learning.losses import NEGATIVE_FLOOR
from cfg_lab.learning.student_plan import PlannedPrompt, StudentPlan
from cfg_lab.models import LanguageModel
from cfg_lab.models.source import LoadedModel


@dataclass(frozen=True, kw_only=True)
class SampledText:
    """A sampled text: its prompt and its tokens, the stop token included."""

    prompt: PlannedPrompt
    tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the teacher says at each token of a text. Log-probs are normalised, float32.

    Attributes:
        guided: the guided distribution, [tokens, vocab].
        positive: the base's distribution on the prompt, [tokens, vocab].
        negatives: the base's distributions on the negative contexts, [tokens, branches, vocab].
        disagreement: KL(positive || negative) at each token, [tokens].
    """

    guided: Tensor
    positive: Tensor
    negatives: Tensor
    disagreement: Tensor


def prompts_of_round(plan: StudentPlan, number: int) -> list[tuple[PlannedPrompt, int]]:
    """The prompts of a round, each with the number of its sample.

    Prompts are taken in a random order, and in another random order when all were taken.
    """
    settings, count = plan.settings, len(plan.selection)
    first = settings.steps_per_round * settings.batch * number
    chosen: list[tuple[PlannedPrompt, int]] = []
    for index in range(first, first + len(settings.steps_of(number)) * settings.batch):
        turn, place = divmod(index, count)
        order = random.Random(f"{settings.seed} {turn}").sample(range(count), count)
        chosen.append((plan.selection[order[place]], turn))
    return chosen


def sample(decoder: Decoder, requests: Iterable[tuple[PlannedPrompt, Request]]) -> list[SampledText]:
    """Decode requests, and return their texts in order."""
    pairs = list(requests)
    tokens = {id(done.request): done.tokens for done in decoder.decode([request for _, request in pairs])}
    return [SampledText(prompt=prompt, tokens=tokens[id(request)]) for prompt, request in pairs]


def as_language_model(module: Any, base: LanguageModel) -> LanguageModel:
    """A transformers model with the tokenizer of the base, which `Decoder` runs fast."""
    return LanguageModel("the student", LoadedModel(module), base.tokenizer, base.prompt_format, pack=True)


@torch.no_grad()
def lessons(plan: StudentPlan, texts: Sequence[SampledText], scale: float) -> list[Lesson]:
    """What the teacher says of each text at a guidance scale, in order.

    As in `opsd_ectr`, no log-prob of a negative is below `NEGATIVE_FLOOR`.
    """
    given = [
        GivenText(plan.request(text.prompt, 0, scale).contexts_with(text.prompt.negatives), text.tokens)
        for text in texts
    ]
    logits: list[list[list[Tensor]]] = [[] for _ in texts]
    for parts in text_logits({None: plan.model, **plan.other_models}, given):
        for part in parts:
            logits[part.number].append(part.branches)
    of_texts: list[Lesson] = []
    for text, of_text in zip(texts, logits, strict=True):
        positive, *others = [torch.cat(list(parts)) for parts in zip(*of_text, strict=True)]
        floored = [other.float().log_softmax(-1).clamp(min=NEGATIVE_FLOOR) for other in others]
        branches = text.prompt.negatives
        step, _ = guide_text(ScalePlan(plan.rule_at(scale)), branches, [positive, *floored])
        nats = divergence(step.positive, step.negatives, step.weights)
        of_texts.append(
            Lesson(guided=step.guided, positive=step.positive, negatives=step.negatives, disagreement=nats)
        )
    return of_texts
