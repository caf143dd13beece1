"""Reads the records of a prompt file: .jsonl, .csv, .parquet or .txt."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from cfg_lab.errors import InputError

FILE_ENDINGS = (".jsonl", ".csv", ".parquet", ".txt")
"""Endings of the names of prompt files."""

_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_records(path: str) -> list[dict[str, Any]]:
    """The records of a prompt file. The ending of its name says what kind of file it is.

    Raises:
        InputError: there is no such file, or its content is not what its ending promises. The message names
            the line.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"prompts.path is {path!r}, which is not a file")
    all_readers = (_read_jsonl, _read_csv, _read_parquet, _read_lines)
    readers: dict[str, Any] = dict(zip(FILE_ENDINGS, all_readers, strict=True))
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise InputError(f"prompts.path must end in {', '.join(FILE_ENDINGS)}, got {path!r}")
    try:
        return reader(file)
    except InputError as error:
        raise InputError(f"prompts.path: {path}: {error}") from error.__cause__
    except (OSError, ValueError) as error:
        raise InputError(f"prompts.path: {path} could not be read: {error}") from error


def _read_text(path: Path) -> str:
    """The text of a file in UTF-8, without its byte-order mark."""
    content = path.read_bytes()
    if content.startswith(_UTF_16_MARKS):
        raise InputError("the file is in UTF-16 or UTF-32; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"line {line} is not in UTF-8; save the file as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"line {line} has a NUL character; a text file in UTF-8 has none")
    return text


def _lines(text: str) -> list[str]:
    r"""The lines of a text. Only \n and \r\n end a line: `str.splitlines` would also split at U+2028."""
    return re.split("\r?\n", text)


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the records of a JSON Lines file, one record per line. Empty lines are skipped."""
    records: list[dict[str, Any]] = []
    for number, line in enumerate(_lines(_read_text(path)), 1):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line, object_pairs_hook=_object, strict=False)
        except InputError as error:
            raise InputError(f"line {number} {error}") from None
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"line {number} is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise InputError(f"line {number} must be a JSON object, got {line[:60]}")
        records.append(cast("dict[str, Any]", record))
    return records


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of a JSON object. Refuses a key that occurs twice, of which JSON would keep the last."""
    for key, times in Counter(key for key, _ in pairs).items():
        if times > 1:
            raise InputError(f"has the key {key!r} {times} times")
    return dict(pairs)


def _read_csv(path: Path) -> list[dict[str, Any]]:
    """Read the records of a CSV file, one record per row. Empty rows are skipped; an empty field is None.

    If there are spaces after the commas of the header, or between a comma and a quotation mark, spaces after
    all commas are skipped. A text in quotation marks would otherwise keep the quotation marks.
    """
    text = _read_text(path)
    first_row = next(_csv_rows(text, skip_spaces=False), None)
    if first_row is None:
        return []
    rows = list(_csv_rows(text, skip_spaces=True))
    if not any(name != name.lstrip() for name in first_row[1][1:]):
        rows_with_spaces = list(_csv_rows(text, skip_spaces=False))
        # They differ in more than spaces if a quotation mark follows a space.
        if _without_leading_spaces(rows_with_spaces) == _without_leading_spaces(rows):
            rows = rows_with_spaces
    (_, header), *rows = rows
    names = [name.strip() for name in header]
    for name, times in Counter(filter(None, names)).items():
        if times > 1:
            raise InputError(f"the header has the name {name!r} {times} times")
    records: list[dict[str, Any]] = []
    for line, row in rows:
        if len(row) != len(names):
            raise InputError(
                f"the row that begins in line {line} has {len(row)} fields, and the header has {len(names)}; "
                'put a text that contains a comma into quotation marks: "one, two"'
            )
        records.append({name: field or None for name, field in zip(names, row, strict=True)})
    return records


def _without_leading_spaces(rows: Sequence[tuple[int, list[str]]]) -> list[list[str]]:
    return [[field.lstrip(" ") for field in fields] for _, fields in rows]


def _csv_rows(text: str, *, skip_spaces: bool) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line, and the fields, of each row that is not empty.

    Args:
        text: content of a CSV file.
        skip_spaces: whether to skip spaces after a comma.
    """
    # Without `strict`, a quotation mark that is never closed would swallow the rest of the file. Without
    # `newline`, a carriage return inside a text would end the row.
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True, skipinitialspace=skip_spaces)
    line = 1
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"the row that begins in line {line} is not CSV: {error}; close every quotation mark, and "
            'double those inside a text: "say ""hi"""'
        ) from None


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    """Read the records of a Parquet file, one record per row."""
    import pyarrow.parquet as pq

    # Without `partitioning=None`, a folder with a name such as a=1 would add a column.
    return pq.read_table(path, partitioning=None).to_pylist()  # pyright: ignore[reportArgumentType]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Make one record per line of a text file. Its field "text" is the line. Empty lines are skipped."""
    text = _read_text(path)
    if lone := re.search("\r(?!\n)", text):
        line = text.count("\n", 0, lone.start()) + 1
        raise InputError(f"line {line} has a carriage return inside; lines end with \\n or \\r\\n")
    return [{"text": line} for line in _lines(text) if line.strip()]
