"""Negative contexts without phrases: the empty prompt, BOS, the last prompt token, the default system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cfg_lab.decoding.request import Branch
from cfg_lab.errors import InputError
from cfg_lab.negatives.negative import Negative, Tokenizing
from cfg_lab.prompts import Prompt

Variant = Literal["empty", "bos", "last_token", "default_system"]


@dataclass(frozen=True)
class NoNegative(Negative):
    """No negative branch: nothing to steer away from, whatever the scale."""

    def branches(self, prompt: Prompt, model: Tokenizing) -> tuple[Branch, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class NamedNegative(Negative):
    """Plain classifier-free guidance: a negative context that holds no phrase.

    Args:
        variant: "empty", an empty user turn, BOS where prompts are plain text; "bos", the beginning-of-
            sequence token alone; "last_token", the prompt's last token (Sanchez et al. and transformers'
            default); "default_system", the prompt under the model's own system message, for prompts that
            have another one.
    """

    variant: Variant

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise InputError(
                f"negatives.variant must be one of {', '.join(get_args(Variant))}, got {self.variant!r}"
            )

    def branches(self, prompt: Prompt, model: Tokenizing) -> tuple[Branch, ...]:
        if self.variant == "empty":
            return (Branch(model.encode("", prompt.system)),)
        if self.variant == "bos":
            return (Branch(model.bos),)
        positive = model.encode(prompt.text, prompt.system)
        if self.variant == "last_token":
            return (Branch(positive[-1:]),)
        default = model.encode(prompt.text)
        if default == positive:
            raise InputError(
                f"negatives=default_system does nothing for prompt {prompt.id!r}, which is asked under model "
                f"{model.name!r}'s own system message already; set prompts.system to another one"
            )
        return (Branch(default),)
