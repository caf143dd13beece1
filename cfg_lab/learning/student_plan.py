"""The training of a student as it was asked for: values that are checked, and the objects of its options."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from omegaconf import DictConfig

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Branch, Request
from cfg_lab.decoding.sampling import Sampling
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance
from cfg_lab.guidance.rule import Rule
from cfg_lab.learning.training_halves import check_half_is_free, prompts_of_half
from cfg_lab.models import LanguageModel
from cfg_lab.models.student import Strength, as_base
from cfg_lab.negatives import Negative
from cfg_lab.prompts import Prompt
from cfg_lab.prompts.halves import Half
from cfg_lab.study.arguments import check_count
from cfg_lab.study.build import check_keys
from cfg_lab.study.config import build, check_option, plain_config
from cfg_lab.study.provenance import command_line
from cfg_lab.study.results_folder import results_folder, study_name
from cfg_lab.study.store import Store

Objective = Literal["gft", "distil"]
Labels = Literal["distribution", "tokens"]
Texts = Literal["plain", "guided", "student"]

_GROUPS = ("model", "prompts", "negatives", "guidance")
_OTHER_KEYS = ("name", "results_root", "tracking")
_COUNTS = ("rank", "steps", "batch", "steps_per_round", "max_new_tokens", "compared_tokens", "check_prompts")
"""Settings that are whole numbers of at least 1."""


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """How a student is trained. The keys of conf/learn_distil.yaml that are single values.

    Args:
        objective: the loss. "gft" is `gft_loss`, "distil" is `distillation_loss`.
        labels: the target of gft. "tokens" are the sampled tokens, as in the paper. "distribution" is the
            model's whole distribution at each token, which has the same mean and less noise.
        texts: the texts that the student reads: plain samples, samples with guidance, or its own samples. gft
            needs plain samples.
        scales: the smallest and the largest guidance scale, above 0. 1 / scale is drawn evenly between them.
        strength: how the strength of the LoRA follows from the scale, see `models.student.strength_at`.
        rank: rank of the LoRA.
        learning_rate: the largest learning rate of AdamW. It rises over the first 5 % of the steps, and then
            falls to 0.
        steps: number of optimisation steps.
        batch: texts per step.
        steps_per_round: steps between two savings of the training state. New texts are sampled for each
            round.
        max_new_tokens: largest number of tokens of a sampled text.
        compared_tokens: number of likeliest tokens that distil compares one by one.
        check_scales: the scales at which the student is compared with guidance on held-out prompts.
        check_prompts: number of held-out prompts of this comparison.
        seed: seed of the samples, the scales and the first values of the LoRA.

    Raises:
        InputError: a value is wrong, or two values do not fit together.
    """

    objective: Objective = "gft"
    labels: Labels = "distribution"
    texts: Texts = "plain"
    scales: Sequence[float] = (1.5, 3.0)
    strength: Strength = "linear"
    rank: int = 16
    learning_rate: float = 1e-3
    steps: int = 250
    batch: int = 4
    steps_per_round: int = 10
    max_new_tokens: int = 32
    compared_tokens: int = 100
    check_scales: Sequence[float] = (1.5, 2.25, 3.0)
    check_prompts: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = {"objective": Objective, "labels": Labels, "texts": Texts, "strength": Strength}
        for key, kind in kinds.items():
            if getattr(self, key) not in get_args(kind):
                raise InputError(
                    f"{key} must be one of {', '.join(get_args(kind))}, got {getattr(self, key)!r}"
                )
        for key in _COUNTS:
            check_count(key, getattr(self, key), 1, 2**63 - 1)
        if type(self.seed) is not int or not -(2**63) <= self.seed < 2**63:
            raise InputError(f"seed must be a whole number, got {self.seed!r}")
        if not _is_number(self.learning_rate) or not 0 < self.learning_rate <= 1:
            raise InputError(
                f"learning_rate must be a number above 0 and at most 1, got {self.learning_rate!r}"
            )
        _check_numbers("scales", self.scales)
        if len(self.scales) != 2 or self.scales[0] > self.scales[1] or list(self.scales) == [1, 1]:
            raise InputError(
                "scales must be [smallest, largest] and not only 1, where guidance is off, as in "
                f"scales=[1,3]; scales=[2,2] trains for one scale; got {self.scales!r}"
            )
        _check_numbers("check_scales", self.check_scales)
        low, high = min(1, self.scales[0]), max(1, self.scales[1])
        for scale in self.check_scales:
            if not low <= scale <= high or scale == 1:
                raise InputError(
                    f"check_scales must be scales from {low:g} to {high:g} other than 1, because scales is "
                    f"{list(self.scales)}, got {scale!r}"
                )
        if self.objective == "gft" and self.texts != "plain":
            raise InputError(
                f"texts must be plain with objective=gft, which learns guidance from plain samples, got "
                f"{self.texts!r}; objective=distil takes every kind"
            )

    def scale_of(self, number: int) -> float:
        """The guidance scale of step or round `number`.

        Additive recurrence spreads 1 / scale evenly over its range, from a random start.
        """
        low, high = 1 / self.scales[1], 1 / self.scales[0]
        share = (random.Random(self.seed).random() + number * (5**0.5 - 1) / 2) % 1
        return 1 / (low + (high - low) * share)

    @property
    def rounds(self) -> int:
        """Number of rounds; the last one can be shorter."""
        return -(-self.steps // self.steps_per_round)

    def steps_of(self, number: int) -> range:
        """The steps of a round."""
        begin = number * self.steps_per_round
        return range(begin, min(begin + self.steps_per_round, self.steps))


@dataclass(frozen=True, kw_only=True)
class PlannedPrompt:
    """A prompt with its token ids and its negative branches."""

    prompt: Prompt
    positive: tuple[int, ...]
    negatives: tuple[Branch, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class StudentPlan:
    """Everything that the training of a student needs.

    Attributes:
        name: name of the study; its results folder is `store`.
        settings: see there.
        model: the base, which is the teacher too.
        other_models: models that run negative branches: fingerprint -> model.
        rule: the guidance rule. Its scale is not used.
        selection: the prompts of training, the half "selection" of the prompt set.
        held_out: the prompts of the check, from the half "held_out".
        training: all keys of the command that change the student, as plain values.
        command: the command line.
    """

    name: str
    store: Store
    settings: StudentSettings
    model: LanguageModel
    other_models: Mapping[str, LanguageModel]
    rule: Rule
    selection: Sequence[PlannedPrompt]
    held_out: Sequence[PlannedPrompt]
    training: Mapping[str, Any]
    command: str

    @property
    def folder(self) -> Path:
        """The folder of the student."""
        return self.store.root / "student"

    def rule_at(self, scale: float) -> Rule:
        """The guidance rule at a scale."""
        return replace(self.rule, scale=scale)

    def request(self, prompt: PlannedPrompt, sample: int, scale: float | None) -> Request:
        """The request of a sample at temperature 1, guided at `scale`; None is without guidance."""
        return Request(
            positive=prompt.positive,
            negatives=() if scale is None else prompt.negatives,
            guidance=None if scale is None else self.rule_at(scale),
            sampling=Sampling(),
            max_new_tokens=self.settings.max_new_tokens,
            stop_ids=self.model.stop_ids,
            seed=self.settings.seed,
            sample=sample,
        )


def build_plan(config: DictConfig) -> StudentPlan:
    """Check a composed config of conf/learn_distil.yaml, and build what it describes. Writes nothing.

    Raises:
        InputError: a value is wrong.
    """
    plain = plain_config(config)
    keys = [field.name for field in fields(StudentSettings)]
    check_keys({**plain, "report": True}, (*keys, *_GROUPS, *_OTHER_KEYS, "report"))
    for group in _GROUPS:
        check_option(plain, group)
    name = study_name(plain.get("name"))
    store = Store(results_folder(plain.get("results_root"), name))
    settings = StudentSettings(**{key: plain[key] for key in keys if key in plain})
    check_half_is_free(plain, "trains on the half selection and checks on the half held_out")
    rule, negatives = build(config, "guidance"), cast("Negative", build(config, "negatives"))
    prompts = cast("list[Prompt]", build(config, "prompts"))
    model = cast("LanguageModel", build(config, "model")())
    as_base(model)
    _check_rule(rule, settings)
    decoder = Decoder(model, "auto", negatives.other_models())
    planned = {prompt.id: _planned(prompt, negatives, model, settings) for prompt in prompts}
    selection, held_out = (
        [planned[prompt.id] for prompt in prompts_of_half(prompts, half)] for half in get_args(Half)
    )
    training = {key: plain[key] for key in (*keys, *_GROUPS) if not key.startswith("check_")}
    plan = StudentPlan(
        name=name,
        store=store,
        settings=settings,
        model=model,
        other_models=negatives.other_models(),
        rule=cast("Rule", rule),
        selection=selection,
        held_out=held_out[: settings.check_prompts],
        training=json.loads(json.dumps(training)),
        command=command_line("cfg_lab.learn", "distil"),
    )
    for prompt in planned.values():
        try:
            decoder.check(plan.request(prompt, 0, settings.scales[1]))
        except InputError as error:
            raise InputError(f"prompt {prompt.prompt.id!r}: {error}") from error
    return plan


def _planned(
    prompt: Prompt, negatives: Negative, model: LanguageModel, settings: StudentSettings
) -> PlannedPrompt:
    """A prompt with its contexts.

    Raises:
        InputError: the prompt does not fit the model, or its negatives do not fit the objective.
    """
    try:
        positive = model.encode(prompt.text, prompt.system)
        branches = negatives.branches(prompt, model)
        if not branches:
            raise InputError("it has no negative, so there is nothing to learn; use negatives=empty or own")
        if settings.objective == "gft" and [branch.weight > 0 for branch in branches] != [True]:
            raise InputError(
                "objective=gft needs one negative with a weight above 0; use negatives.mode=joined, or "
                "objective=distil"
            )
    except InputError as error:
        raise InputError(f"prompt {prompt.id!r}: {error}") from error
    return PlannedPrompt(prompt=prompt, positive=positive, negatives=branches)


def _check_rule(rule: Any, settings: StudentSettings) -> None:
    """Raise InputError if a student cannot be trained with the guidance rule."""
    if not isinstance(rule, Rule):
        raise InputError("guidance must be a rule with a scale, such as guidance=cfg")
    if settings.objective == "gft" and rule != ClassifierFreeGuidance(scale=rule.scale):
        raise InputError(
            "objective=gft learns plain classifier-free guidance only; use guidance=cfg without schedule, "
            "modifiers and stopping, or objective=distil"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_numbers(key: str, values: Any) -> None:
    """Raise InputError unless a value is a list of guidance scales."""
    is_list = isinstance(values, list | tuple)
    numbers: list[Any] = list(cast("Sequence[Any]", values)) if is_list else []
    if not numbers or not all(_is_number(number) and 0 < number <= 1000 for number in numbers):
        raise InputError(f"{key} must be a list of numbers above 0 and at most 1000, got {values!r}")
