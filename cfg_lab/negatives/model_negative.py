"""The same prompt under other models: guidance between models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from cfg_lab.decoding.request import Branch
from cfg_lab.errors import InputError
from cfg_lab.negatives.negative import Negative, Tokenizing
from cfg_lab.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class ModelNegative(Negative):
    """The same prompt under other models: guidance between models.

    Args:
        models: functions that load them, by a name of their part in it ("amateur"). Their tokenizers must be
            the generator's; the sizes of their vocabularies may be padded differently.
        weights: of each, by the same names; below 0 it attracts.
    """

    models: Mapping[str, Callable[[], Any]]
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.models or set(self.models) != set(self.weights):
            raise InputError(
                f"negatives.weights must have one weight for each of negatives.models "
                f"({', '.join(self.models)}), got {dict(self.weights)}"
            )

    @cached_property
    def _loaded(self) -> dict[str, Any]:
        return {name: load() for name, load in self.models.items()}

    def other_models(self) -> Mapping[str, Any]:
        return {model.fingerprint: model for model in self._loaded.values()}

    def branches(self, prompt: Prompt, model: Tokenizing) -> tuple[Branch, ...]:
        for name, other in self._loaded.items():
            if not _same_tokens(model, other):
                raise InputError(
                    f"negatives.models.{name}: model {other.name!r} has another tokenizer than "
                    f"{model.name!r}; guidance between models needs the same one"
                )
        ids = model.encode(prompt.text, prompt.system)
        return tuple(
            Branch(ids, float(self.weights[name]), other.fingerprint) for name, other in self._loaded.items()
        )


@lru_cache(maxsize=16)
def _same_tokens(one: Tokenizing, other: Tokenizing) -> bool:
    return one.vocabulary == other.vocabulary
