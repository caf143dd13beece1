"""Prompt sets: written in a config, read from a file, or taken from a dataset."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from cfg_lab.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text to continue or an instruction to follow.

    Attributes:
        id: unique in its prompt set; names the prompt in every table.
        text: what the model is asked.
        negative: the prompt's own negative prompt, weighted phrases ("sad:0.8, bleak"); `negatives=own` uses
            it.
        system: system message for chat models; None leaves the model's default.
        reference: a known good answer, for metrics that compare with one.
    """

    id: str
    text: str
    negative: str | None = None
    system: str | None = None
    reference: str | None = None


_FIELDS = [field.name for field in fields(Prompt)]


def inline(
    prompts: Sequence[Mapping[str, Any]], *, system: str | None = None, limit: int | None = None
) -> list[Prompt]:
    """Prompts written out in a config.

    Args:
        prompts: mappings with `text` and optionally id, negative, system, reference.
        system: system message of prompts that have none of their own; for chat models.
        limit: take the first so many; None takes all.

    Raises:
        InputError: there are none, one has no text, two share an id, or a field is unknown.
    """
    return _checked(prompts, "prompts.prompts", system, limit)


def from_file(
    path: str, *, column: str = "text", system: str | None = None, limit: int | None = None
) -> list[Prompt]:
    """Prompts from a .jsonl, .csv, .parquet (a record a prompt) or .txt file (a line a prompt).

    Args:
        path: the file.
        column: the field that holds the text; other fields named as Prompt's are taken too.
        system, limit: as in `inline`.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"prompts.path is {path!r}, which is not a file")
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet, ".txt": _txt}
    if file.suffix not in readers:
        raise InputError(f"prompts.path must end in {', '.join(readers)}, got {path!r}")
    try:
        records = readers[file.suffix](file)
    except InputError:
        raise
    except (UnicodeDecodeError, OSError, ValueError) as error:
        raise InputError(f"prompts.path: {path} could not be read: {error}") from error
    return _checked(_renamed(records, column, path), path, system, limit)


def from_dataset(
    name: str,
    *,
    column: str = "text",
    split: str = "test[:100]",
    config: str | None = None,
    system: str | None = None,
    limit: int | None = None,
) -> list[Prompt]:
    """Prompts from a column of a dataset.

    Args:
        name: of a dataset on the hub, a folder, or a builder such as "json".
        split: in the slicing language of `datasets`, "test[:100]".
        config: the dataset's configuration, where it has several.
        column, system, limit: as in `from_file`.
    """
    from datasets import load_dataset  # pyright: ignore[reportUnknownVariableType]

    try:
        records: Any = load_dataset(name, config, split=split)
    except Exception as error:  # datasets raises a dozen kinds, some of its own
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"prompts.name is {name!r} with split {split!r}, which could not be loaded: {first}"
        ) from error
    return _checked(_renamed(records, column, name), name, system, limit)


def _renamed(records: Iterable[Mapping[str, Any]], column: str, where: str) -> list[dict[str, Any]]:
    """Only the fields a Prompt has, the text's column under its name."""
    renamed: list[dict[str, Any]] = []
    for record in records:
        if column not in record:
            raise InputError(f"prompts.column is {column!r}, but {where} has {', '.join(map(str, record))}")
        known = {key: value for key, value in record.items() if key in _FIELDS and not _missing(value)}
        renamed.append({**known, "text": record[column]})
    return renamed


def _missing(value: object) -> bool:
    """How the formats say that there is nothing: null, an empty cell, NaN."""
    return value is None or value == "" or value != value


def _checked(
    records: Sequence[Mapping[str, Any]], where: str, system: str | None, limit: int | None
) -> list[Prompt]:
    if limit is not None and limit < 1:
        raise InputError(f"prompts.limit must be at least 1, got {limit}")
    prompts: list[Prompt] = []
    for number, record in enumerate(records[:limit], 1):
        unknown = [str(key) for key in record if key not in _FIELDS]
        if unknown:
            raise InputError(
                f"{where}: prompt {number} has an unknown field {unknown[0]!r}; "
                f"fields are {', '.join(_FIELDS)}"
            )
        text = record.get("text")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: prompt {number} has no text, got {text!r}")
        values: dict[str, Any] = {"id": number, "system": system, **record}
        texts: dict[str, Any] = {key: None if value is None else str(value) for key, value in values.items()}
        prompts.append(Prompt(**texts))
    if not prompts:
        raise InputError(f"{where} has no prompts; it needs at least one")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise InputError(f"{where}: two prompts have the id {prompt.id!r}; ids must differ")
        seen.add(prompt.id)
    return prompts


def _jsonl(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"prompts.path: line {number} of {path} is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise InputError(f"prompts.path: line {number} of {path} must be a JSON object, got {line[:60]}")
        records.append(cast("dict[str, Any]", record))
    return records


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened))


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def _txt(path: Path) -> list[dict[str, Any]]:
    return [{"text": line} for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
