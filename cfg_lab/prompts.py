"""Prompts, and where a prompt set comes from: a config, a file, or a dataset."""

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
    """An instruction to follow, or the beginning of a text to continue.

    Attributes:
        id: identifies the prompt in every table. Unique in its prompt set.
        text: the instruction for a chat model; for other models the text to continue.
        negative: phrases to steer away from, with weights, such as "sad:0.8, bleak". The option
            `negatives=own` uses them. None means no phrases.
        system: system message for chat models. None means the model's default system message.
        references: good answers, for metrics that compare texts with good answers. A text is compared with
            each of them, and the best score counts. Empty means that no good answer is known.
    """

    id: str
    text: str
    negative: str | None = None
    system: str | None = None
    references: tuple[str, ...] = ()


_FIELDS = ["reference" if field.name == "references" else field.name for field in fields(Prompt)]


def inline(
    prompts: Sequence[Mapping[str, Any]], *, system: str | None = None, limit: int | None = None
) -> list[Prompt]:
    """Prompts that are written out in a config.

    Args:
        prompts: one mapping per prompt, with the key `text` and optionally the keys `id`, `negative`,
            `system` and `reference`. A prompt without an id gets its number as id, counted from 1.
        system: system message for chat models, for prompts that have no system message of their own.
        limit: number of prompts to take, from the first on. None means all prompts.

    Raises:
        InputError: there is no prompt, a prompt has no text, two prompts have the same id, or a field is
            unknown.
    """
    return _prompts(prompts, "prompts.prompts", system, limit)


def from_file(
    path: str, *, column: str = "text", system: str | None = None, limit: int | None = None
) -> list[Prompt]:
    """Prompts from a .jsonl, .csv or .parquet file (one record per prompt) or a .txt file (one per line).

    Empty lines are skipped. A field of a record is ignored if a prompt has no field of that name.

    Args:
        path: the file.
        column: name of the field that holds the text.
        system, limit: as in `inline`.

    Raises:
        InputError: the file cannot be read, or one of the reasons given at `inline`.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"prompts.path is {path!r}, which is not a file")
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet, ".txt": _read_lines}
    if file.suffix not in readers:
        raise InputError(f"prompts.path must end in {', '.join(readers)}, got {path!r}")
    try:
        records = readers[file.suffix](file)
    except InputError:
        raise
    except (UnicodeDecodeError, OSError, ValueError) as error:
        raise InputError(f"prompts.path: {path} could not be read: {error}") from error
    return _prompts(_prompt_fields(records, column, path), path, system, limit)


def from_dataset(
    name: str,
    *,
    column: str = "text",
    split: str = "test[:100]",
    config: str | None = None,
    system: str | None = None,
    limit: int | None = None,
) -> list[Prompt]:
    """Prompts from a column of a dataset, read with the datasets library.

    Args:
        name: a dataset on the hub, a folder, or a builder such as "json".
        split: which records to read, in the slicing syntax of the datasets library, such as "test[:100]".
        config: name of the dataset's configuration, if the dataset has several.
        column, system, limit: as in `from_file`.

    Raises:
        InputError: the dataset cannot be loaded, or one of the reasons given at `inline`.
    """
    from datasets import load_dataset  # pyright: ignore[reportUnknownVariableType]

    try:
        records: Any = load_dataset(name, config, split=split)
    except Exception as error:  # the library raises many types, several of them its own
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"prompts.name is {name!r} with split {split!r}, which could not be loaded: {first_line}"
        ) from error
    return _prompts(_prompt_fields(records, column, name), name, system, limit)


def _prompt_fields(records: Iterable[Mapping[str, Any]], column: str, source: str) -> list[dict[str, Any]]:
    """Keep only the fields of each record that a prompt has.

    The field named `column` is renamed to "text". Every other field is kept if the class `Prompt` has a field
    with the same name and the value is not missing. `source` names the records in error messages.
    """
    selected: list[dict[str, Any]] = []
    for record in records:
        if column not in record:
            raise InputError(f"prompts.column is {column!r}, but {source} has {', '.join(map(str, record))}")
        values = {key: value for key, value in record.items() if key in _FIELDS and not _is_missing(value)}
        selected.append({**values, "text": record[column]})
    return selected


def _is_missing(value: object) -> bool:
    """Whether a value is missing. File formats mark a missing value by null, empty text or NaN."""
    return value is None or value == "" or value != value


def _prompts(
    records: Sequence[Mapping[str, Any]], source: str, system: str | None, limit: int | None
) -> list[Prompt]:
    """Make one prompt per record. `source` names the records in error messages.

    Raises:
        InputError: one of the reasons given at `inline`.
    """
    if limit is not None and limit < 1:
        raise InputError(f"prompts.limit must be at least 1, got {limit}")
    prompts: list[Prompt] = []
    for number, record in enumerate(records[:limit], 1):
        unknown = [str(key) for key in record if key not in _FIELDS]
        if unknown:
            raise InputError(
                f"{source}: prompt {number} has an unknown field {unknown[0]!r}; "
                f"fields are {', '.join(_FIELDS)}"
            )
        text = record.get("text")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{source}: prompt {number} has no text, got {text!r}")
        values: dict[str, Any] = {"id": number, "system": system, **record}
        texts: dict[str, Any] = {key: None if value is None else str(value) for key, value in values.items()}
        reference = texts.pop("reference", None)
        references = () if reference is None else (reference,)
        prompts.append(Prompt(**texts, references=references))
    if not prompts:
        raise InputError(f"{source} has no prompts; it needs at least one")
    seen_ids: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen_ids:
            raise InputError(f"{source}: two prompts have the id {prompt.id!r}; ids must differ")
        seen_ids.add(prompt.id)
    return prompts


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the records of a JSON Lines file, one record per line. Empty lines are skipped."""
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


def _read_csv(path: Path) -> list[dict[str, Any]]:
    """Read the records of a CSV file, one record per row. Skip a byte-order mark, which Excel writes."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    """Read the records of a Parquet file, one record per row."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Make one record per line of a text file. Its field "text" is the line. Empty lines are skipped."""
    return [{"text": line} for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
