"""Guidance between models: the negative context is the prompt itself, read by other models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from cfg_lab.decoding.request import Branch
from cfg_lab.errors import InputError
from cfg_lab.negatives.negative import Negative, PromptEncoder
from cfg_lab.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class ModelNegative(Negative):
    """Guidance between models: one branch per other model, each with the token ids of the positive context.

    Args:
        models: for each role, such as "amateur", a function that loads the model. The loaded model must have
            the tokenizer of the model that generates. Its vocabulary may be padded to another size.
        weights: for each role the weight of its branch. With a weight below 0, guidance steers towards the
            other model instead of away from it.
    """

    models: Mapping[str, Callable[[], Any]]
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        for name in ("models", "weights"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not value:
                raise InputError(f"negatives.{name} must be a mapping from roles, got {value!r}")
        if set(self.models) != set(self.weights):
            raise InputError(
                f"negatives.weights must have one weight for each of negatives.models "
                f"({', '.join(map(str, self.models))}), got {dict(self.weights)}"
            )
        numbers = [*self.weights.values()]
        if not all(
            isinstance(number, int | float) and math.isfinite(number) for number in numbers
        ) or not any(numbers):
            raise InputError(
                f"negatives.weights must be finite numbers that are not all 0, got {dict(self.weights)}"
            )

    @cached_property
    def _loaded(self) -> dict[str, Any]:
        """The loaded models, as role -> model. A role is a name from the config, such as "amateur"."""
        loaded: dict[str, Any] = {}
        for role, load in self.models.items():
            try:
                loaded[role] = load()
            except InputError as error:
                raise InputError(f"negatives.models.{role}: {error}") from error
        return loaded

    def other_models(self) -> Mapping[str, Any]:
        return {model.fingerprint: model for model in self._loaded.values()}

    def branches(self, prompt: Prompt, model: PromptEncoder) -> tuple[Branch, ...]:
        for role, other_model in self._loaded.items():
            if not _same_vocabulary(model, other_model):
                raise InputError(
                    f"negatives.models.{role}: model {other_model.name!r} has another tokenizer than "
                    f"{model.name!r}; guidance between models needs the same one"
                )
        ids = model.encode(prompt.text, prompt.system)
        return tuple(
            Branch(ids, float(self.weights[role]), other_model.fingerprint)
            for role, other_model in self._loaded.items()
        )


@lru_cache(maxsize=16)  # comparing two vocabularies takes longer than encoding a prompt
def _same_vocabulary(model: PromptEncoder, other_model: PromptEncoder) -> bool:
    return model.vocabulary == other_model.vocabulary
