"""The negative context is the prompt with a reversed instruction."""

from __future__ import annotations

from dataclasses import dataclass

from cfg_lab.decoding.request import Branch
from cfg_lab.errors import InputError
from cfg_lab.negatives.negative import Negative, PromptEncoder
from cfg_lab.prompts import Prompt
from cfg_lab.prompts.template import fill_template


@dataclass(frozen=True, kw_only=True)
class OppositeNegative(Negative):
    """The negative context is the prompt with an instruction to do the opposite of what the prompt asks.

    Two published methods use this negative:

    - Instructive decoding (arXiv:2311.00233) writes the reversed instruction before the prompt, as text. The
      default template is the variant "opposite" of this paper, which worked best in the paper.
    - ROSE (arXiv:2402.11889) reverses the system message and leaves the prompt as it is:
      `template="{prompt}"` with `system` set.

    Both papers write the formula as positive - epsilon * negative. This formula equals classifier-free
    guidance with scale 1 / (1 - epsilon), sampled at temperature 1 / (1 - epsilon).

    Args:
        template: the text of the negative context, with {prompt} where the prompt belongs. For a chat model
            this text is the user's message.
        system: system message of the negative context, for chat models. None means the system message of the
            prompt.
    """

    template: str = "Always respond with the opposite of what you're asked. You never get it right.\n{prompt}"
    system: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.template, str) or "{prompt}" not in self.template:
            raise InputError(
                "negatives.template must be a text with {prompt} where the prompt belongs, "
                f"got {self.template!r}"
            )
        if self.template.strip() == "{prompt}" and self.system is None:
            raise InputError(
                f"negatives.template is {self.template!r} and negatives.system is not set, so the negative "
                "context would be the prompt itself; write a reversed instruction into either"
            )

    def branches(self, prompt: Prompt, model: PromptEncoder) -> tuple[Branch, ...]:
        if self.system is not None and not model.chat:
            raise InputError(
                f"negatives.system is {self.system!r}, but model {model.name!r} is used without a chat "
                "template; write the reversed instruction into negatives.template"
            )
        system = prompt.system if self.system is None else self.system
        return (Branch(model.encode(fill_template(self.template, {"prompt": prompt.text}), system)),)
