"""Negative contexts made of weighted phrases and a template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from cfg_lab.decoding.request import Branch
from cfg_lab.errors import InputError
from cfg_lab.negatives.negative import Negative, Tokenizing
from cfg_lab.negatives.phrases import Phrase, parse_phrases
from cfg_lab.prompts import Prompt

DEFAULT_TEMPLATE = "{prompt} It should be {negative}."
TEMPLATES = {"default": DEFAULT_TEMPLATE, "bare": "{negative}"}
"""Templates by name; any other template is text with {negative} and usually {prompt} in it."""

Mode = Literal["joined", "separate"]


@dataclass(frozen=True, kw_only=True)
class PhraseNegative(Negative):
    """Weighted phrases in a template.

    Args:
        phrases: "ugly:0.8, deformed:0.5"; None takes each prompt's own.
        template: a name in TEMPLATES or text with {negative}, and {prompt} where the prompt belongs.
        mode: "joined" is one branch whose phrases stand in order of weight, heaviest first; "separate" is
            one branch a phrase, with its weight in the formula.
    """

    phrases: str | None = None
    template: str = "default"
    mode: Mode = "joined"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InputError(f"negatives.mode must be joined or separate, got {self.mode!r}")
        if "{negative}" not in TEMPLATES.get(self.template, self.template):
            raise InputError(
                f"negatives.template must be one of {', '.join(TEMPLATES)}, or a text with {{negative}} "
                f"in it such as {DEFAULT_TEMPLATE!r}; got {self.template!r}"
            )
        if self.phrases is not None:
            self._weighed(self.phrases, "negatives.phrases")

    def branches(self, prompt: Prompt, model: Tokenizing) -> tuple[Branch, ...]:
        return tuple(
            Branch(model.encode(text, prompt.system), weight) for text, weight in self.contexts(prompt)
        )

    def contexts(self, prompt: Prompt) -> list[tuple[str, float]]:
        """Text and weight of each negative context.

        Raises:
            InputError: the prompt's phrases cannot be read, or it has none of its own.
        """
        text = self.phrases if self.phrases is not None else prompt.negative
        if text is None:
            raise InputError(
                f"negatives=own, but prompt {prompt.id!r} has no negative of its own; give it one, or use "
                'negatives=custom negatives.phrases="…"'
            )
        phrases = self._weighed(text, f"the negative of prompt {prompt.id!r}")
        if self.mode == "separate":
            return [(self._fill(prompt, phrase.text), phrase.weight) for phrase in phrases]
        ordered = sorted(phrases, key=lambda phrase: -phrase.weight)
        return [(self._fill(prompt, ", ".join(phrase.text for phrase in ordered)), 1.0)]

    def _weighed(self, text: str, key: str) -> tuple[Phrase, ...]:
        try:
            phrases = parse_phrases(text)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
        if not any(phrase.weight for phrase in phrases):
            raise InputError(f"{key}: all weights are 0 in {text!r}; at least one phrase must count")
        below = [phrase.text for phrase in phrases if phrase.weight < 0]
        if below and self.mode == "joined":
            raise InputError(
                f"{key}: {below[0]!r} has a weight below 0, which one joined context cannot express; "
                "use negatives.mode=separate"
            )
        return tuple(phrase for phrase in phrases if phrase.weight)

    def _fill(self, prompt: Prompt, negative: str) -> str:
        template = TEMPLATES.get(self.template, self.template)
        # Not str.format: prompts may hold braces.
        return re.sub(
            r"\{(prompt|negative)\}", lambda m: prompt.text if m[1] == "prompt" else negative, template
        )
