"""Makes prompts from records. A record is a mapping from the names of a prompt's fields to their values.

Records come from users: from configs, files and datasets. Whatever cannot become a prompt exactly as it is
written is refused.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, cast

from cfg_lab.errors import InputError
from cfg_lab.prompts.halves import Half, check_half, half_of
from cfg_lab.prompts.phrases import join_phrases, parse_phrases
from cfg_lab.prompts.prompt import Prompt

FIELDS = ("id", "text", "negative", "system", "reference", "references")
"""The fields of a record. `reference` and `references` are two names of the same field."""

_LIST_WRITTEN_AS_TEXT = re.compile(r"""\s*\[\s*['"].*['"]\s*\]\s*""", re.DOTALL)
"""What a list of texts looks like after pandas has written it into a CSV file: "['sad', 'bleak']"."""


def make_prompts(
    records: Iterable[Mapping[str, Any]],
    source: str,
    system: str | None,
    limit: int | None,
    column: str = "text",
    *,
    half: Half | None = None,
) -> list[Prompt]:
    """Make one prompt per record.

    Args:
        records: the records. A value that is None or NaN is missing.
        source: where the records come from, for error messages.
        system: system message of prompts that have none of their own.
        limit: number of prompts to take, from the first on. None means all prompts.
        column: the name that the field `text` has at its source, for error messages.
        half: take only the prompts of this half, see `cfg_lab.prompts.halves`. None means all prompts.

    Raises:
        InputError: there is no record, a record has no text, two prompts have the same id, a field is unknown
            or has a value of a wrong type, or the phrases of a negative cannot be read. The message names the
            number of the record.
    """
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise InputError(f"prompts.limit must be a whole number of at least 1, got {limit!r}")
    check_half(half)
    system = _text(system, "prompts.system")
    all_prompts = (
        _prompt(record, number, source, system, column) for number, record in enumerate(records, 1)
    )
    prompts = list(islice((p for p in all_prompts if half is None or half_of(p) == half), limit))
    if not prompts:
        of_half = "" if half is None else f" in the half {half}"
        raise InputError(f"{source} has no prompts{of_half}; it needs at least one")
    seen_ids: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen_ids:
            raise InputError(f"{source}: two prompts have the id {prompt.id!r}; ids must differ")
        seen_ids.add(prompt.id)
    return prompts


def select_fields(records: Iterable[Mapping[str, Any]], column: str, source: str) -> Iterable[dict[str, Any]]:
    """Keep only the fields of each record that a prompt has.

    The field named `column` is renamed to "text". Spaces around the name of a field do not count.

    Args:
        records: the records of a file or dataset.
        column: name of the field that holds the text.
        source: where the records come from, for error messages.
    """
    for record in records:
        values = {key.strip(): value for key, value in record.items()}
        if len(values) < len(record):
            raise InputError(f"{source} has two columns with the same name: {', '.join(record)}")
        if column.strip() not in values:
            raise InputError(f"prompts.column is {column!r}, but {source} has {', '.join(values)}")
        selected = {key: value for key, value in values.items() if key in FIELDS}
        yield {**selected, "text": values[column.strip()]}


def _prompt(record: object, number: int, source: str, system: str | None, column: str) -> Prompt:
    """Make the prompt of one record. The record has this number, counted from 1, at its source."""
    name = f"{source}: prompt {number}"
    if not isinstance(record, Mapping):
        raise InputError(f"{name} must be a mapping with the key text, got {reprlib.repr(record)}")
    fields = cast("Mapping[str, Any]", record)
    unknown = [str(key) for key in fields if key not in FIELDS]
    if unknown:
        raise InputError(f"{name} has an unknown field {unknown[0]!r}; fields are {', '.join(FIELDS)}")
    values = {key: _without_array(value) for key, value in fields.items() if not _is_missing(value)}
    text = _text(values.get("text"), f"{name}: {column}")
    if text is None or not text.strip():
        raise InputError(f"{name} has no text, got {text!r}")
    system_of_record = _text(values.get("system"), f"{name}: system")
    return Prompt(
        id=_id(values.get("id"), f"{name}: id") or str(number),
        text=text,
        negative=_negative(values.get("negative"), f"{name}: negative"),
        system=system if system_of_record is None else system_of_record,
        references=_references(values, name),
    )


def _is_missing(value: object) -> bool:
    """Whether a value is missing. File formats mark a missing value by null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _id(value: object, key: str) -> str | None:
    """The id of a prompt, which may be written as a number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else _text(value, key)


def _negative(value: object, key: str) -> str | None:
    """The negative phrases of a prompt as one text. A list is several phrases."""
    _check_list(value, key, "write phrases as in 'ugly:0.8, low resolution', or lists")
    negative = _text(value, key) if isinstance(value, str) else join_phrases(_texts(value, key))
    if not negative:
        return None
    try:
        parse_phrases(negative)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None
    return negative


def _references(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The good answers of a prompt, each a text or a whole number. `name` names the record in messages."""
    keys = [key for key in ("reference", "references") if key in values]
    if len(keys) > 1:
        raise InputError(f"{name} has both reference and references; give one of them")
    if "references" in values:  # `reference` is one answer, which can be a list written as text
        _check_list(values["references"], f"{name}: references", "name one answer reference, or write lists")
    return tuple(text for key in keys for text in _texts(values[key], f"{name}: {key}", numbers=True))


def _check_list(value: object, key: str, hint: str) -> None:
    """Refuse a list that was written as text. `hint` begins the sentence that says what is right."""
    if isinstance(value, str) and _LIST_WRITTEN_AS_TEXT.fullmatch(value):
        raise InputError(
            f"{key} is a list that was written as text, got {reprlib.repr(value)}; {hint} in a .jsonl or "
            ".parquet file"
        )


def _texts(value: object, key: str, *, numbers: bool = False) -> tuple[str, ...]:
    """One text or a list of texts as a tuple. A missing or empty text becomes an empty tuple.

    Args:
        value: the value of a field.
        key: what the value is, for error messages.
        numbers: whether whole numbers are allowed too, which become text.
    """
    if value is None or value == "":
        return ()
    items: Sequence[object] = cast("Any", value) if isinstance(value, list | tuple) else [value]
    texts = [
        str(item) if numbers and isinstance(item, int) and not isinstance(item, bool) else _text(item, key)
        for item in items
    ]
    if not all(text and text.strip() for text in texts):
        raise InputError(f"{key} must be texts that are not empty, got {reprlib.repr(items)}")
    return tuple(text for text in texts if text)


def _text(value: object, key: str) -> str | None:
    """A value that must be a text or missing. `key` says what it is, for error messages."""
    if value is None:
        return None
    if not isinstance(value, str):
        hint = f'; write it as text: "{value}"' if isinstance(value, int | float) else ""
        raise InputError(f"{key} must be a text, got {reprlib.repr(value)}{hint}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{key} is not valid Unicode: character {error.start + 1} is half of a surrogate pair "
            f"({value[error.start]!r})"
        ) from None
    return value


def _without_array(value: Any) -> Any:
    """Convert a numpy array to a list. Other values stay."""
    return value.tolist() if hasattr(value, "tolist") else value
