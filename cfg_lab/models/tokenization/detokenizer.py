"""Converts between token ids and a text that continues a context.

Tokenizers are made for whole texts. Many of them (SentencePiece as in Llama 2, WordPiece) put a space before
a text when they encode it, and remove the leading space when they decode it. For new tokens, which follow a
context, both would be wrong: the text would lose its leading space, and would be scored with other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

_PRECEDING_CHARACTERS = ("a", ".", "1", "\n")
"""Characters that `encode` tries to put before a text. A tokenizer may merge some of them with the text."""


class Detokenizer:
    """Decodes new tokens as they stand in a text, after other tokens. Also encodes such a text.

    Args:
        tokenizer: a transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._pieces: dict[int, str] = {}

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of new tokens, without special tokens; see `LanguageModel.decode`."""
        return self._decode(tokens, skip_special_tokens=True)

    def piece(self, token: int) -> str:
        """The text of one token, special tokens by name; see `LanguageModel.piece`."""
        if token not in self._pieces:
            self._pieces[token] = self._decode([token], skip_special_tokens=False)
        return self._pieces[token]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that continues a context, without special tokens.

        If the tokenizer puts a space before every text, it is given the text behind a character, whose tokens
        are then left out.
        """
        tokens = self._encode_alone(text)
        for character in _PRECEDING_CHARACTERS:
            if _leading_spaces(self.decode(tokens)) == _leading_spaces(text):
                break
            before, both = self._encode_alone(character), self._encode_alone(character + text)
            # They differ at the beginning if the tokenizer has merged the character with the text.
            if both[: len(before)] == before:
                tokens = both[len(before) :]
        return tokens

    @cached_property
    def keeps_leading_spaces(self) -> bool:
        """Whether the tokenizer itself keeps the leading space of new tokens that it decodes alone."""
        space_and_letter = self._encode_alone("a a")[len(self._encode_alone("a")) :]
        return self.tokenizer.decode(space_and_letter) == self.decode(space_and_letter)

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens, which `decode` leaves out: token -> id."""
        added: dict[int, Any] = self.tokenizer.added_tokens_decoder
        return {token.content: number for number, token in added.items() if token.special}

    def _encode_alone(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _decode(self, tokens: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Decode tokens behind another token, and leave out the text of that token."""

        def text_of(ids: list[int]) -> str:
            return self.tokenizer.decode(
                ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )

        before, whole = text_of(self._preceding_token), text_of([*self._preceding_token, *tokens])
        return whole.removeprefix(before) if whole.startswith(before) else text_of(list(tokens))

    @cached_property
    def _preceding_token(self) -> list[int]:
        """A list of one token id: an ordinary token. The list is empty if there are only special tokens."""
        for token in (*self._encode_alone("a")[-1:], *sorted(self.tokenizer.get_vocab().values())):
            text: str = self.tokenizer.decode([token], skip_special_tokens=True)
            if text.strip() and "\N{REPLACEMENT CHARACTER}" not in text:
                return [token]
        return []


def _leading_spaces(text: str) -> int:
    return len(text) - len(text.lstrip(" "))
