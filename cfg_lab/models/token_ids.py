"""Token ids of a text, checked."""

from __future__ import annotations

from typing import Any

from cfg_lab.errors import InputError
from cfg_lab.models.library_errors import errors_of_libraries


def check_characters(text: str) -> None:
    """Raise InputError if a text has a surrogate without its other half, which is not a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text has {text[error.start]!r} at position {error.start}, which is half of a character; "
            "remove it"
        ) from error


def token_ids(tokenizer: Any, text: str, vocab_size: int, model: str, *, special: bool) -> tuple[int, ...]:
    """Token ids of a text.

    Args:
        tokenizer: a transformers tokenizer.
        text: any text.
        vocab_size: number of tokens that the model knows.
        model: name of the model, for messages of errors.
        special: let the tokenizer add its special tokens, such as the beginning-of-sequence token.

    Raises:
        InputError: the tokenizer cannot read the text, or gives an id that the model does not know.
    """
    check_characters(text)
    with errors_of_libraries(f"the tokenizer of model {model!r} cannot read the text"):
        ids = tuple(map(int, tokenizer(text, add_special_tokens=special).input_ids))
    if text.strip() and not ids:
        raise InputError(f"the tokenizer of model {model!r} makes no tokens of the text {text!r}")
    if ids and max(ids) >= vocab_size:
        token = tokenizer.convert_ids_to_tokens(max(ids))
        raise InputError(
            f"the tokenizer of model {model!r} gives the token {token!r} the id {max(ids)}, but the model "
            f"has only {vocab_size} tokens; use the tokenizer that the model was trained with"
        )
    return ids
