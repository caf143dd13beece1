"""Strings that end a text: `stop` in a config."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from cfg_lab.errors import InputError

if TYPE_CHECKING:
    from cfg_lab.decoding.completion import Completion
    from cfg_lab.models import LanguageModel


@dataclass(frozen=True)
class StopStrings:
    """Ends a text when the text contains one of several strings.

    Call a StopStrings with the new tokens of a text. It returns whether the text must end.

    Attributes:
        strings: the strings, none of them empty.
        decode: function that turns token ids into text.
    """

    strings: tuple[str, ...]
    decode: Callable[[Sequence[int]], str] = field(repr=False, compare=False)

    def __call__(self, tokens: Sequence[int]) -> bool:
        # A stop string ends in the newest token, so the end of the text decides. That keeps the cost of a
        # step independent of the length of the text. In nearly every vocabulary a token is at least one
        # byte; where tokens have no text, such as special tokens, more tokens are decoded.
        size = max(len(string.encode()) for string in self.strings) + 8  # some bytes of a character more
        count = size
        text = self.decode(tokens[-count:])
        while len(text.encode()) < size and count < len(tokens):
            count *= 2
            text = self.decode(tokens[-count:])
        # The first token of `text` can be a part of a character. So the whole text confirms what was found.
        return self._first(text) is not None and self._first(self.decode(tokens)) is not None

    def cut(self, completion: Completion) -> tuple[Completion, str]:
        """Cut a completion before its first stop string.

        The tokens that remain are those with at least one character before the stop string. If the stop
        string begins inside a token, this token remains, and counts in full wherever tokens are counted. The
        text is cut exactly. If a text begins with the stop string, no token remains.

        Returns:
            The completion with the tokens and the trace that remain, and its text. A completion that
            contains no stop string is returned unchanged.
        """
        text = self.decode(completion.text_tokens)
        start = self._first(text)
        if start is None:
            return completion, text
        tokens, length = completion.tokens, len(completion.text_tokens)
        while length and self.decode(tokens[: length - 1]).startswith(text[:start]):
            length -= 1
        return completion.first(length), text[:start]

    def _first(self, text: str) -> int | None:
        """Index in a text where its first stop string begins; None if the text contains no stop string."""
        return min((text.index(string) for string in self.strings if string in text), default=None)


_ESCAPES = {r"\n": "\n", r"\t": "\t", "\\\\": "\\"}


def stop_strings(value: Any) -> tuple[str, ...]:
    """The stop strings that a config gives under `stop`: one text, or a list of texts.

    A line break is hard to type on a command line. So `\\n` means a line break, `\\t` a tab and `\\\\` a
    backslash. A backslash before another character is an ordinary character.

    Raises:
        InputError: the value is something else, or one of the texts is empty.
    """
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    strings: list[Any] = list(cast("Sequence[Any]", value)) if is_list else [value]
    if not all(isinstance(string, str) and string for string in strings):
        raise InputError(
            "stop must be a text or a list of texts, none of them empty (a number needs quotes), "
            f"got {strings if is_list else value!r}"
        )
    return tuple(re.sub(r"\\[nt\\]", lambda match: _ESCAPES[match[0]], string) for string in strings)


def stops_of(strings: Sequence[str], model: LanguageModel) -> tuple[frozenset[int], StopStrings | None]:
    """What ends a text of a model: stop tokens, and a rule for the stop strings that are not special tokens.

    Special tokens are not part of the text, so they cannot be found in it. A string that is a special token
    of the model is therefore a stop token.

    Args:
        strings: the stop strings, none of them empty.
        model: the model that decodes the text.

    Raises:
        InputError: a string contains a special token and is more than this token.
    """
    special_tokens = model.special_tokens if strings else {}
    stop_ids = model.stop_ids | {special_tokens[string] for string in strings if string in special_tokens}
    searched = tuple(string for string in strings if string not in special_tokens)
    for string in searched:
        for token in special_tokens:
            if token in string:
                raise InputError(
                    f"stop has {string!r}, which contains the special token {token!r} of model "
                    f"{model.name!r}; special tokens are not part of a text: give {token!r} alone"
                )
    return stop_ids, StopStrings(searched, model.decode) if searched else None
