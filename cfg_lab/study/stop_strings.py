"""Strings that end a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


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
        # In nearly every vocabulary a token is at least one byte, so the last tokens decide. That keeps the
        # cost of a step independent of the length of the text.
        window = max(len(string.encode()) for string in self.strings) + 8
        text = self.decode(tokens[-window:])
        return any(string in text for string in self.strings)

    def cut(self, text: str) -> str:
        """The text before its first stop string; the whole text if it contains no stop string."""
        return text[: min((text.index(string) for string in self.strings if string in text), default=None)]
