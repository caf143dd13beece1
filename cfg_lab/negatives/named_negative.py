"""Negative contexts that need no text from the user, such as the empty prompt or BOS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cfg_lab.decoding.request import Branch
from cfg_lab.errors import InputError
from cfg_lab.negatives.negative import Negative, PromptEncoder
from cfg_lab.prompts import Prompt

Variant = Literal["empty", "bos", "last_token", "default_system"]


@dataclass(frozen=True)
class NoNegative(Negative):
    """No negative branch: texts are decoded unguided at every scale."""

    def branches(self, prompt: Prompt, model: PromptEncoder) -> tuple[Branch, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class NamedNegative(Negative):
    """Plain classifier-free guidance: the negative context holds no phrase to steer away from.

    Args:
        variant: the negative context.
            "empty": an empty user turn. For models without a chat template, the BOS token alone.
            "bos": the beginning-of-sequence token alone.
            "last_token": the last token of the prompt, as in Sanchez et al. 2023 (arXiv:2306.17806) and by
            default in transformers.
            "default_system": the prompt with the model's default system message. The prompt itself must have
            another system message.
    """

    variant: Variant

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise InputError(
                f"negatives.variant must be one of {', '.join(get_args(Variant))}, got {self.variant!r}"
            )

    def branches(self, prompt: Prompt, model: PromptEncoder) -> tuple[Branch, ...]:
        if self.variant == "empty":
            return (Branch(model.encode("", prompt.system)),)
        if self.variant == "bos":
            return (Branch(model.bos),)
        positive = model.encode(prompt.text, prompt.system)
        if self.variant == "last_token":
            return (Branch(positive[-1:]),)
        with_default_system = model.encode(prompt.text)
        if with_default_system == positive:
            raise InputError(
                f"negatives=default_system does nothing for prompt {prompt.id!r}, which already has the "
                f"default system message of model {model.name!r}; set prompts.system to another one"
            )
        return (Branch(with_default_system),)
