"""Negative prompts: weighted phrases, the template that puts them into a context, and named variants.

What negative context a prompt gets is a published choice and changes the method: transformers' default is
the last prompt token, others use the empty prompt, the base prompt with an addition, or a bare list of
words. Each is a named option here, and the token ids used are kept with every completion.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, Protocol, get_args

from cfg_lab.records import Branch, InputError, Prompt

DEFAULT_TEMPLATE = "{prompt} It should be {negative}."
TEMPLATES = {"default": DEFAULT_TEMPLATE, "bare": "{negative}"}
"""Templates by name; any other template is text with {negative} and usually {prompt} in it."""

Mode = Literal["joined", "separate"]
Variant = Literal["empty", "bos", "last_token", "default_system"]


class Tokens(Protocol):
    """What a negative needs of a model."""

    @property
    def name(self) -> str: ...
    @property
    def bos(self) -> tuple[int, ...]: ...
    @property
    def chat(self) -> bool: ...
    @property
    def vocabulary(self) -> dict[str, int]: ...
    def encode(self, text: str, system: str | None = None) -> tuple[int, ...]: ...


class Negative(ABC):
    """Gives a prompt its negative branches under a model; no branches leave it unguided."""

    @abstractmethod
    def branches(self, prompt: Prompt, model: Tokens) -> tuple[Branch, ...]: ...

    def others(self) -> Mapping[str, Any]:
        """Further models that the branches name, by fingerprint."""
        return {}


@dataclass(frozen=True)
class Phrase:
    """A thing to steer away from, and how much: below 0 it attracts."""

    text: str
    weight: float = 1.0


def parse_phrases(text: str) -> tuple[Phrase, ...]:
    r"""Read weighted phrases.

    Phrases are separated by commas; a weight follows a colon and is 1 without one. A backslash takes the
    next character literally. Full-width punctuation (，：、；) is understood.

    >>> parse_phrases("ugly:0.8, a 3\\:1 ratio")
    (Phrase(text='ugly', weight=0.8), Phrase(text='a 3:1 ratio', weight=1.0))

    Raises:
        InputError: an empty phrase or a weight that is not a finite number; says at which position.
    """
    if not text.strip():
        raise InputError("a negative prompt must have at least one phrase, got an empty text")
    phrases: list[Phrase] = []
    begin = 0
    for part in _split(text, ",，、;；"):
        words, *weights = _split(part, ":：")
        where = f"at position {begin + 1} of the negative prompt {text!r}"
        if not _unescape(words).strip():
            raise InputError(f"empty phrase {where}; write phrases as in 'ugly:0.8, low resolution'")
        if len(weights) > 1:
            raise InputError(f"more than one colon in {part.strip()!r} {where}; write a literal colon as \\:")
        phrases.append(Phrase(_unescape(words).strip(), _weight(weights[0], where) if weights else 1.0))
        begin += len(part) + 1
    return tuple(phrases)


def _split(text: str, separators: str) -> list[str]:
    r"""Split at separators that no backslash escapes."""
    parts: list[str] = []
    current, escaped = "", False
    for character in text:
        if not escaped and character in separators:
            parts.append(current)
            current = ""
        else:
            current += character
        escaped = character == "\\" and not escaped
    return [*parts, current]


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _weight(text: str, where: str) -> float:
    number = text.strip()
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", number, flags=re.ASCII | re.IGNORECASE):
        raise InputError(
            f"weight {number!r} {where} is not a number; write 'ugly:0.8', or a literal colon as \\:"
        )
    weight = float(number)
    if not math.isfinite(weight):
        raise InputError(f"weight {number!r} {where} is too large")
    return weight


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

    def branches(self, prompt: Prompt, model: Tokens) -> tuple[Branch, ...]:
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


@dataclass(frozen=True)
class NoNegative(Negative):
    """No negative branch: nothing to steer away from, whatever the scale."""

    def branches(self, prompt: Prompt, model: Tokens) -> tuple[Branch, ...]:
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

    def branches(self, prompt: Prompt, model: Tokens) -> tuple[Branch, ...]:
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

    def others(self) -> Mapping[str, Any]:
        return {model.fingerprint: model for model in self._loaded.values()}

    def branches(self, prompt: Prompt, model: Tokens) -> tuple[Branch, ...]:
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
def _same_tokens(one: Tokens, other: Tokens) -> bool:
    return one.vocabulary == other.vocabulary
