"""Token ids of a text, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cfg_lab.errors import InputError, errors_of_libraries


def check_characters(text: str) -> None:
    """Raise InputError if a text has a surrogate without its other half, which is not a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text has {text[error.start]!r} at position {error.start}, which is half of a character; "
            "remove it"
        ) from error


def token_ids(
    encode: Callable[[str], Sequence[int]], text: str, tokenizer: Any, vocab_size: int, model: str
) -> tuple[int, ...]:
    """Token ids of a text.

    Args:
        encode: converts a text to token ids, by the tokenizer.
        text: any text.
        tokenizer: a transformers tokenizer, for messages of errors.
        vocab_size: number of tokens that the model knows.
        model: name of the model, for messages of errors.

    Raises:
        InputError: the tokenizer cannot read the text, or gives an id that the model does not know.
    """
    check_characters(text)
    with errors_of_libraries(f"the tokenizer of model {model!r} cannot read the text"):
        ids = tuple(map(int, encode(text)))
    if text.strip() and not ids:
        raise InputError(f"the tokenizer of model {model!r} makes no tokens of the text {text!r}")
    if ids and max(ids) >= vocab_size:
        token = tokenizer.convert_ids_to_tokens(max(ids))
        raise InputError(
            f"the tokenizer of model {model!r} gives the token {token!r} the id {max(ids)}, but the model "
            f"has only {vocab_size} tokens; use the tokenizer that the model was trained with"
        )
    return ids
