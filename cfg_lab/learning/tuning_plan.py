"""The tuning of a model as it was asked for: values that are checked, and the objects of its options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.sampling import Sampling
from cfg_lab.errors import InputError
from cfg_lab.learning.training_halves import check_half_is_free, prompts_of_half
from cfg_lab.metrics import Metric
from cfg_lab.models import LanguageModel
from cfg_lab.models.student import as_base
from cfg_lab.prompts import Prompt
from cfg_lab.study.aim import Aim, check_per_text, parse_aim
from cfg_lab.study.arguments import check_count
from cfg_lab.study.build import check_keys
from cfg_lab.study.config import build, check_option, plain_config
from cfg_lab.study.results_folder import results_folder, study_name
from cfg_lab.study.store import Store

_GROUPS = ("model", "prompts")
_OTHER_KEYS = ("name", "results_root", "tracking", "metrics", "aim")


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """How a model is tuned. The keys of conf/learn_tune.yaml that are single values.

    Args:
        beta: coefficient of KL(tuned || base) in the loss, at least 0. The best model for it is the base
            times exp(reward / beta), so a small value lets it go far.
        steps: number of optimisation steps.
        batch: texts per step; a multiple of `generations`.
        generations: texts per prompt and step, at least 2: their mean reward is the baseline.
        max_new_tokens: largest number of tokens of a text.
        rank: rank of the LoRA.
        learning_rate: learning rate of AdamW at the first step; it falls to 0.
        steps_per_save: steps between two savings of the training state.
        seed: seed of the samples and of the first values of the LoRA.

    Raises:
        InputError: a value is wrong.
    """

    beta: float = 0.05
    steps: int = 40
    batch: int = 16
    generations: int = 8
    max_new_tokens: int = 32
    rank: int = 8
    learning_rate: float = 1e-3
    steps_per_save: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for key, low, high in (("beta", 0, 1000), ("learning_rate", 0, 1)):
            value = getattr(self, key)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not low <= value <= high or (key == "learning_rate" and value == 0):
                raise InputError(f"{key} must be a number from {low} to {high}, got {value!r}")
        lowest = {"steps": 1, "batch": 2, "generations": 2, "max_new_tokens": 1, "rank": 1, "seed": 0}
        for key, low in {**lowest, "steps_per_save": 1}.items():
            check_count(key, getattr(self, key), low, 2**31 - 1)
        if self.batch % self.generations:
            raise InputError(
                f"batch must be a multiple of generations={self.generations}, the texts per prompt, got "
                f"{self.batch}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningPlan:
    """Everything that the tuning of a model needs.

    Attributes:
        name: name of the study; its results folder is `store`.
        model: the base.
        aim: the reward.
        prompts: the prompts of training, the half "selection" of the prompt set.
        training: all keys of the command that change the tuned model, as plain values.
    """

    name: str
    store: Store
    settings: TuningSettings
    model: LanguageModel
    aim: Aim
    prompts: Sequence[Prompt]
    training: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The folder of the adapter."""
        return self.store.root / "adapter"

    def request(self, prompt: Prompt, sample: int) -> Request:
        """The request of a sample at temperature 1."""
        return Request(
            positive=self.model.encode(prompt.text, prompt.system),
            sampling=Sampling(),
            max_new_tokens=self.settings.max_new_tokens,
            stop_ids=self.model.stop_ids,
            seed=self.settings.seed,
            sample=sample,
        )


def build_tuning(config: DictConfig) -> TuningPlan:
    """Check a composed config of conf/learn_tune.yaml, and build what it describes. Writes nothing.

    Raises:
        InputError: a value is wrong.
    """
    plain = plain_config(config)
    keys = [field.name for field in fields(TuningSettings)]
    check_keys({**plain, "report": True}, (*keys, *_GROUPS, *_OTHER_KEYS, "report"))
    for group in _GROUPS:
        check_option(plain, group)
    name = study_name(plain.get("name"))
    settings = TuningSettings(**{key: plain[key] for key in keys if key in plain})
    check_half_is_free(plain, "trains on the half selection")
    aim = parse_aim(plain.get("aim"), cast("list[Metric]", list(build(config, "metrics").values())))
    check_per_text(aim)
    prompts = cast("list[Prompt]", build(config, "prompts"))
    selection = prompts_of_half(prompts, "selection")
    model = cast("LanguageModel", build(config, "model")())
    _check_model(model)
    training = {key: plain[key] for key in (*keys, *_GROUPS, "metrics", "aim")}
    plan = TuningPlan(
        name=name,
        store=Store(results_folder(plain.get("results_root"), name)),
        settings=settings,
        model=model,
        aim=aim,
        prompts=selection,
        training=json.loads(json.dumps(training)),
    )
    decoder = Decoder(model)
    for prompt in selection:
        try:
            decoder.check(plan.request(prompt, 0))
        except InputError as error:
            raise InputError(f"prompt {prompt.id!r}: {error}") from error
    return plan


def _check_model(model: LanguageModel) -> None:
    """Raise InputError if TRL cannot train the model right."""
    as_base(model)
    # TRL pads prompts on the left and gives no position ids. This changes nothing for rotary positions, which
    # are relative.
    config = model.config.get_text_config()
    if getattr(config, "rope_parameters", None) is None and getattr(config, "rope_theta", None) is None:
        raise InputError(
            f"model {model.name!r} has no rotary positions, and TRL would train it with shifted positions; "
            "use a model with rotary positions such as smollm2"
        )
