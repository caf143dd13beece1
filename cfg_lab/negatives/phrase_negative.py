"""Negative contexts made of weighted phrases and a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cfg_lab.decoding.request import Branch
from cfg_lab.errors import InputError
from cfg_lab.negatives.negative import Negative, PromptEncoder
from cfg_lab.prompts import Phrase, Prompt, parse_phrases
from cfg_lab.prompts.template import fill_template

DEFAULT_TEMPLATE = "{prompt} It should be {negative}."
TEMPLATES = {"default": DEFAULT_TEMPLATE, "bare": "{negative}"}
"""Templates by name. Every other template is a text with {negative}, and usually {prompt}, in it."""

Mode = Literal["joined", "separate"]


@dataclass(frozen=True, kw_only=True)
class PhraseNegative(Negative):
    """The negative contexts are weighted phrases, written into a template.

    Args:
        phrases: the phrases with their weights, such as "ugly:0.8, deformed:0.5". None means that each prompt
            has its own phrases, in its field `negative`.
        template: a name in `TEMPLATES`, or a text with {negative} where the phrases belong and {prompt}
            where the prompt belongs. For a chat model this text is the user's message.
        mode: "joined" makes one branch that lists all phrases, the heaviest first. "separate" makes one
            branch per phrase, and the formula of guidance uses the phrase's weight.
        heaviest: the largest number of phrases to use. The heaviest are used, and of equally heavy ones the
            first. None means all phrases.
        system: system message of the negative context, for chat models, with {negative} where the phrases
            belong. The template then needs no {negative}. None means the system message of the prompt. The
            text replaces that message, so guidance also steers towards what that message says. With many
            chat models this is the name of the model: keep such a message at the beginning of the text.
    """

    phrases: str | None = None
    template: str = "default"
    mode: Mode = "joined"
    heaviest: int | None = None
    system: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InputError(f"negatives.mode must be joined or separate, got {self.mode!r}")
        if self.heaviest is not None and (
            not isinstance(self.heaviest, int) or isinstance(self.heaviest, bool) or self.heaviest < 1
        ):
            raise InputError(
                f"negatives.heaviest must be null or a whole number of at least 1, got {self.heaviest!r}"
            )
        if self.system is not None and (not isinstance(self.system, str) or "{negative}" not in self.system):
            raise InputError(
                "negatives.system must be null or a text with {negative} in it such as "
                f"'Your answers are {{negative}}.', got {self.system!r}"
            )
        if not isinstance(self.template, str) or (
            self.system is None and "{negative}" not in TEMPLATES.get(self.template, self.template)
        ):
            raise InputError(
                f"negatives.template must be one of {', '.join(TEMPLATES)}, or a text with {{negative}} "
                f"in it such as {DEFAULT_TEMPLATE!r}; got {self.template!r}"
            )
        if self.phrases is not None:
            if not isinstance(self.phrases, str):
                raise InputError(
                    "negatives.phrases must be a text such as 'ugly:0.8, low resolution' (on a command line "
                    f"negatives.phrases='\"ugly:0.8, low resolution\"'), got {self.phrases!r}"
                )
            self._parse(self.phrases, "negatives.phrases")

    def branches(self, prompt: Prompt, model: PromptEncoder) -> tuple[Branch, ...]:
        if self.system is not None and not model.chat:
            raise InputError(
                f"negatives.system is {self.system!r}, but model {model.name!r} is used without a chat "
                "template; write {negative} into negatives.template"
            )
        return tuple(
            Branch(model.encode(text, system), weight) for text, system, weight in self.contexts(prompt)
        )

    def phrases_for(self, prompt: Prompt) -> str | None:
        return self.phrases

    def phrases_of(self, prompt: Prompt) -> tuple[Phrase, ...]:
        """The phrases that guidance steers away from, for one prompt.

        Phrases of weight 0 are left out, and so are all but the `heaviest`.

        Raises:
            InputError: the phrases cannot be parsed, or `phrases` is None and the prompt has none.
        """
        text = self.phrases if self.phrases is not None else prompt.negative
        if text is None:
            raise InputError(
                f"negatives=own, but prompt {prompt.id!r} has no negative of its own; give it one, or use "
                'negatives=custom negatives.phrases="…"'
            )
        phrases = self._parse(text, f"the negative of prompt {prompt.id!r}")
        if self.heaviest is None:
            return phrases
        return tuple(sorted(phrases, key=lambda phrase: -abs(phrase.weight))[: self.heaviest])

    def contexts(self, prompt: Prompt) -> list[tuple[str, str | None, float]]:
        """A triple (text, system message, weight) for each negative context of a prompt.

        Raises:
            InputError: as for `phrases_of`.
        """
        phrases = self.phrases_of(prompt)
        if self.mode == "separate":
            return [(*self._context(prompt, phrase.text), phrase.weight) for phrase in phrases]
        heaviest_first = sorted(phrases, key=lambda phrase: -phrase.weight)
        return [(*self._context(prompt, ", ".join(phrase.text for phrase in heaviest_first)), 1.0)]

    def _parse(self, text: str, source: str) -> tuple[Phrase, ...]:
        """Parse the phrases in a text, and leave out phrases of weight 0.

        `source` says where the text comes from, for error messages.
        """
        try:
            phrases = parse_phrases(text)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        if not any(phrase.weight for phrase in phrases):
            raise InputError(f"{source}: all weights are 0 in {text!r}; at least one phrase must count")
        attracting = [phrase.text for phrase in phrases if phrase.weight < 0]
        if attracting and self.mode == "joined":
            raise InputError(
                f"{source}: {attracting[0]!r} has a weight below 0, which one joined context cannot express; "
                "use negatives.mode=separate"
            )
        return tuple(phrase for phrase in phrases if phrase.weight)

    def _context(self, prompt: Prompt, phrases: str) -> tuple[str, str | None]:
        """The text and the system message of a negative context, with prompt and phrases filled in."""
        values = {"prompt": prompt.text, "negative": phrases}
        system = prompt.system if self.system is None else fill_template(self.system, values)
        return fill_template(TEMPLATES.get(self.template, self.template), values), system
