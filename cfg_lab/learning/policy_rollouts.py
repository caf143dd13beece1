"""Texts decoded with shares that are drawn from a policy, and their rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Request
from cfg_lab.guidance import Branches, LearnedScale, Rule
from cfg_lab.guidance.divergences import kl_divergence
from cfg_lab.guidance.policy import features
from cfg_lab.metrics.likelihood import mean_log_prob
from cfg_lab.metrics.text import Text
from cfg_lab.models import LanguageModel
from cfg_lab.study.aim import Aim
from cfg_lab.study.columns import CELL_COLUMNS, COMPLETION_COLUMNS, TEXT_COLUMNS, Decoded, row, text_of
from cfg_lab.study.planned_text import PlannedText

Penalty = Literal["kl", "perplexity"]


@dataclass(frozen=True)
class Choice:
    """What happened at one step of a text.

    Attributes:
        features: what the network read, see `FEATURES`.
        action: the number of the share that was drawn.
        divergence: KL(guided || positive) at the step, in nats.
    """

    features: tuple[float, ...]
    action: int
    divergence: float


@dataclass(frozen=True, kw_only=True)
class ExploringScale(LearnedScale):
    """A learned scale that draws the share at each step from the softmax of the network's scores.

    The draw is a function of seed, step and scores. Each text needs a seed of its own, so it is also a group
    of its own in the decoder.

    Args:
        seed: numbers that determine the draws.
        choices: step -> what was drawn there. The decoder's steps fill it.
    """

    seed: tuple[int, ...]
    choices: dict[int, Choice] = field(compare=False, repr=False, default_factory=dict[int, Choice])

    @classmethod
    def of(cls, policy: LearnedScale, seed: tuple[int, ...]) -> ExploringScale:
        """The scale that draws from a policy."""
        return cls(**{part.name: getattr(policy, part.name) for part in fields(policy)}, seed=seed)

    def scale_in_force(self, scale: Tensor, branches: Branches, guided: Callable[[Tensor], Tensor]) -> Tensor:
        values = features(branches, self.length)
        assert len(values) == 1  # seeds differ, so each text is alone
        assert branches.steps is not None
        step = int(branches.steps[0])
        noise = torch.tensor(self._noise[step], dtype=torch.float32, device=values.device)
        action = int((self.scores(values) + noise).argmax())
        share = self.shares[action]
        chosen = share * scale + (1 - share)
        divergence = kl_divergence(guided(chosen), branches.positive)
        self.choices[step] = Choice(tuple(map(float, values[0])), action, float(divergence[0]))
        return chosen

    @cached_property
    def _noise(self) -> NDArray[np.float64]:
        """Gumbel noise, [steps, shares]. The largest sum of score and noise is a draw from the softmax."""
        return np.random.default_rng(self.seed).gumbel(size=(self.length, len(self.shares)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollouts:
    """The texts of one update.

    Attributes:
        features: [steps, features], of all steps of all texts.
        actions: [steps], int64, the number of the share that was drawn.
        texts: [steps], int64, the number of the text that a step belongs to. Texts are in the order of
            prompts, and the samples of a prompt are next to each other.
        aims: [prompts, samples], the value of the aim; higher is better.
        penalties: [prompts, samples], nats per token.
        plain_aims: [prompts], the value of the aim for decoding without guidance and with the same noise.
        tokens: number of new tokens of all texts, those without guidance included.
    """

    features: Tensor
    actions: Tensor
    texts: Tensor
    aims: NDArray[np.float64]
    penalties: NDArray[np.float64]
    plain_aims: NDArray[np.float64]
    tokens: int


def roll_out(
    policy: LearnedScale,
    planned: Mapping[int, PlannedText],
    decoder: Decoder,
    models: Mapping[str | None, LanguageModel],
    *,
    samples: int,
    sample: int,
    seed: int,
    aim: Aim,
    penalty: Penalty,
) -> Rollouts:
    """Decode texts with drawn shares, and plain texts beside them.

    All texts of a prompt have the same noise of tokens. So their rewards differ by the drawn shares only.

    Args:
        policy: the policy.
        planned: number of a prompt -> the planned text, whose guidance rule has no adaptive strength.
        decoder: decodes the texts.
        models: the models of `decoder`.
        samples: number of texts with drawn shares for each prompt.
        sample: selects the noise of the tokens.
        seed: seed of the draws.
        aim: gives the value of a text.
        penalty: "kl" is the mean of KL(guided || plain) over the tokens. "perplexity" is the mean negative
            log-prob per token under plain decoding, minus that of the plain text if it is larger.
    """
    requests: list[Request] = []
    scales: list[ExploringScale] = []
    for number, text in planned.items():
        rule = text.request.guidance
        assert isinstance(rule, Rule)
        for draw in range(samples):
            scale = ExploringScale.of(policy, (seed, sample, number, draw))
            scales.append(scale)
            requests.append(replace(text.request, guidance=replace(rule, adaptive=scale), sample=sample))
    plain = [replace(text.request, guidance=None, sample=sample) for text in planned.values()]
    completions = {id(done.request): done for done in decoder.decode([*requests, *plain])}
    owners = [text for text in planned.values() for _ in range(samples)]
    texts = [
        as_text(text, completions[id(request)], models)
        for text, request in zip([*owners, *planned.values()], [*requests, *plain], strict=True)
    ]
    aims = _worst_if_missing(aim.rewards(texts))
    guided_texts, plain_texts = texts[: len(requests)], texts[len(requests) :]
    if penalty == "kl":
        penalties = [
            sum(choice.divergence for choice in scale.choices.values()) / len(completions[id(request)].tokens)
            for scale, request in zip(scales, requests, strict=True)
        ]
    else:
        nats = [-mean_log_prob(text.log_probs) for text in guided_texts]
        plain_nats = [-mean_log_prob(text.log_probs) for text in plain_texts for _ in range(samples)]
        excess = np.array(nats) - np.array(plain_nats)
        penalties = list(np.maximum(np.nan_to_num(excess), 0))
    steps = [(number, choice) for number, scale in enumerate(scales) for choice in scale.choices.values()]
    return Rollouts(
        features=torch.tensor([choice.features for _, choice in steps]),
        actions=torch.tensor([choice.action for _, choice in steps]),
        texts=torch.tensor([number for number, _ in steps]),
        aims=aims[: len(requests)].reshape(-1, samples),
        penalties=np.array(penalties).reshape(-1, samples),
        plain_aims=aims[len(requests) :],
        tokens=sum(len(done.tokens) for done in completions.values()),
    )


def as_text(planned: PlannedText, completion: Completion, models: Mapping[str | None, LanguageModel]) -> Text:
    """A completion as metrics see it.

    Args:
        planned: the plan of the text, without stop strings.
        completion: the text.
        models: the models of the branches by name. None is the model of the prompt.
    """
    decoded = Decoded(
        planned=planned,
        completion=completion,
        models=tuple(models[name] for name, _ in completion.request.contexts),
        text=models[None].decode(completion.text_tokens),
    )
    columns = tuple(column for column in COMPLETION_COLUMNS if column.name in TEXT_COLUMNS)
    return text_of(row(CELL_COLUMNS, planned), row(columns, decoded))


def _worst_if_missing(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rewards, [texts]. A text without a value, such as an empty one, is given the lowest of all."""
    lowest = np.nanmin(rewards) if np.isfinite(rewards).any() else 0.0
    return np.where(np.isnan(rewards), lowest, rewards)


def mean_shares(policy: LearnedScale, rollouts: Rollouts) -> list[float]:
    """How often each share was drawn, [shares]."""
    counts = np.bincount(rollouts.actions.numpy(), minlength=len(policy.shares))
    return list(map(float, counts / counts.sum()))
