"""Negative phrases from a YAML file: one set for all prompts, or one set per prompt.

    phrases:                     # for every prompt; or one text: "sad:0.8, bleak"
      - {phrase: sad, weight: 0.8}
      - {phrase: bleak}
    prompts:                     # or, in the place of phrases: for each prompt, by its id
      knight: [{phrase: boring}]
    template: default            # optional, and so are mode and system: as in negatives=custom
    evidence: {}                 # optional, any value: why these phrases; read by nobody

A phrase can also name its origin. Everything else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import yaml

from cfg_lab.decoding.request import Branch
from cfg_lab.errors import InputError, reason_of
from cfg_lab.negatives.negative import Negative, PromptEncoder
from cfg_lab.negatives.phrase_negative import Mode, PhraseNegative
from cfg_lab.prompts import Phrase, Prompt, parse_phrases
from cfg_lab.prompts.phrases import write_phrases

_KEYS = ("phrases", "prompts", "template", "mode", "system", "evidence")
_KEYS_OF_A_PHRASE = ("phrase", "weight", "origin")
_OVERRIDES = ("template", "mode", "system")


@dataclass(frozen=True, kw_only=True)
class FileNegative(Negative):
    """The negative contexts are weighted phrases from a file, written into a template.

    Args:
        path: the YAML file; the module's docstring shows its form.
        template, mode, system: as in `PhraseNegative`. None takes the file's value, or the default of
            `PhraseNegative` if the file names none.
        heaviest: as in `PhraseNegative`.

    Raises:
        InputError: the file cannot be read, or says something that is not understood.
    """

    path: str
    template: str | None = None
    mode: Mode | None = None
    heaviest: int | None = None
    system: str | None = None
    _sets: Mapping[str | None, PhraseNegative] = field(init=False, repr=False, compare=False)
    """The phrases of each prompt by its id. The key None stands for all prompts."""

    def __post_init__(self) -> None:
        content = _read(self.path)
        named = {key: getattr(self, key) for key in _OVERRIDES if getattr(self, key) is not None}
        of_file = {key: content[key] for key in _OVERRIDES if content.get(key) is not None}
        arguments: dict[str, Any] = {**of_file, **named, "heaviest": self.heaviest}
        sets: dict[str | None, PhraseNegative] = {}
        for prompt, phrases in _sets(content, self.path).items():
            try:
                sets[prompt] = PhraseNegative(phrases=phrases, **arguments)
            except InputError as error:
                if any(f"negatives.{key} " in str(error) for key in (*named, "heaviest")):
                    raise
                raise InputError(f"negatives.path: {self.path}: {error}") from error
        object.__setattr__(self, "_sets", sets)

    @property
    def content(self) -> str:
        parts = {
            str(prompt): [negative.phrases, negative.template, negative.mode, negative.system]
            for prompt, negative in self._sets.items()
        }
        digest = blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=6).hexdigest()
        whole = self._sets.get(None)
        return f"{f'{len(self._sets)} sets' if whole is None else whole.phrases} ({digest})"

    def phrases_for(self, prompt: Prompt) -> str | None:
        return self._of(prompt).phrases

    def phrases_of(self, prompt: Prompt) -> tuple[Phrase, ...]:
        """The phrases that guidance steers away from, for one prompt.

        Raises:
            InputError: the file has sets per prompt, but none for this prompt.
        """
        return self._of(prompt).phrases_of(prompt)

    def branches(self, prompt: Prompt, model: PromptEncoder) -> tuple[Branch, ...]:
        return self._of(prompt).branches(prompt, model)

    def _of(self, prompt: Prompt) -> PhraseNegative:
        found = self._sets.get(None) or self._sets.get(prompt.id)
        if found is None:
            raise InputError(
                f"negatives.path: {self.path} has no phrases for prompt {prompt.id!r}; it has phrases for "
                f"{', '.join(map(str, self._sets))}"
            )
        return found


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that occurs twice, of which YAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"the key {key!r} occurs {keys.count(key)} times")
        return super().construct_mapping(node, deep)


def _read(path: object) -> dict[str, Any]:
    """The content of the file, with known keys only."""
    if not isinstance(path, str) or "\0" in path or not Path(path).is_file():
        raise InputError(f"negatives.path is {path!r}, which is not a file")
    try:
        # _StrictLoader is a SafeLoader.
        loaded: Any = yaml.load(Path(path).read_text(encoding="utf-8"), _StrictLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"negatives.path: {path} could not be read: {reason_of(error)}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"negatives.path: {path} must be a mapping with the key phrases or prompts")
    content = cast("dict[str, Any]", loaded)
    for key in content:
        if key not in _KEYS:
            raise InputError(
                f"negatives.path: {path} has an unknown key {key!r}; the keys are {', '.join(_KEYS)}"
            )
    if ("phrases" in content) == ("prompts" in content):
        raise InputError(
            f"negatives.path: {path} must have one of the keys phrases (the same for all prompts) and "
            f"prompts (a set for each), got {', '.join(content) or 'none'}"
        )
    return content


def _sets(content: Mapping[str, Any], path: str) -> dict[str | None, str]:
    """The phrases by prompt, each set as a negative prompt that `parse_phrases` reads."""
    if "phrases" in content:
        return {None: _phrases(content["phrases"], f"negatives.path: {path}: phrases")}
    prompts = content["prompts"]
    if not isinstance(prompts, dict) or not prompts:
        raise InputError(
            f"negatives.path: {path}: prompts must be a mapping from ids of prompts, got {prompts!r}"
        )
    return {
        str(prompt): _phrases(phrases, f"negatives.path: {path}: prompts.{prompt}")
        for prompt, phrases in cast("dict[Any, Any]", prompts).items()
    }


def _phrases(value: Any, key: str) -> str:
    """One set of phrases. `key` names it in messages."""
    if isinstance(value, str):
        try:
            return write_phrases(parse_phrases(value))
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
    if not isinstance(value, list) or not value:
        raise InputError(f"{key} must be a text such as 'sad:0.8, bleak' or a list of phrases, got {value!r}")
    items = cast("list[Any]", value)
    return write_phrases([_phrase(item, f"{key}.{number}") for number, item in enumerate(items)])


def _phrase(value: Any, key: str) -> Phrase:
    item: dict[Any, Any] = cast("dict[Any, Any]", value) if isinstance(value, dict) else {"phrase": value}
    unknown = [name for name in item if name not in _KEYS_OF_A_PHRASE]
    if unknown:
        raise InputError(
            f"{key} has an unknown key {unknown[0]!r}; the keys are {', '.join(_KEYS_OF_A_PHRASE)}"
        )
    text, weight = item.get("phrase"), item.get("weight", 1.0)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{key} must have a text as phrase, got {text!r}; write words such as no in quotes")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < float("inf"):
        raise InputError(f"{key}: weight must be a finite number, got {weight!r}")
    return Phrase(" ".join(text.split()), float(weight))
