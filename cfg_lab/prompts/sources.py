"""The sources of prompt sets. Each function is the `_target_` of an option of conf/prompts."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from cfg_lab.errors import InputError, reason_of
from cfg_lab.options import CONFIG
from cfg_lab.prompts.files import read_records
from cfg_lab.prompts.halves import Half
from cfg_lab.prompts.prompt import Prompt
from cfg_lab.prompts.records import make_prompts, select_fields


def inline(
    prompts: Sequence[Mapping[str, Any]],
    *,
    system: str | None = None,
    limit: int | None = None,
    half: Half | None = None,
) -> list[Prompt]:
    """Prompts that are written out in a config.

    Args:
        prompts: one mapping per prompt, with the key `text` and optionally the keys `id`, `negative`,
            `system` and `reference`. A prompt without an id gets its number as id, counted from 1. A list as
            `negative` is several phrases; a phrase of a list can have a weight and can contain commas. A list
            as `reference` (or `references`) is several good answers.
        system: system message for chat models, for prompts that have no system message of their own.
        limit: number of prompts to take, from the first on. None means all prompts.
        half: take the prompts of one half only, see `cfg_lab.prompts.halves`: "selection", to choose a
            setting with, or "held_out", to report on what was chosen. None means both.

    Raises:
        InputError: there is no prompt, a prompt has no text, two prompts have the same id, a field is unknown
            or has a value of a wrong type, or the phrases of a negative cannot be read.
    """
    if isinstance(prompts, str | Mapping) or not isinstance(prompts, Sequence):
        raise InputError(f"prompts.prompts must be a list of mappings with the key text, got {prompts!r}")
    return make_prompts(prompts, "prompts.prompts", system, limit, half=half)


def of_this_lab(
    set_name: str, *, system: str | None = None, limit: int | None = None, half: Half | None = None
) -> list[Prompt]:
    """Prompts that were written for this lab, from conf/prompts/<set_name>.jsonl.

    Two hundred prompts in a YAML file would double the time that Hydra takes to compose a config.

    Args:
        set_name: name of the file without its ending.
        system, limit, half: as in `inline`.

    Raises:
        InputError: there is no such set, or one of the reasons given at `inline`.
    """
    return make_prompts(_records_of_this_lab(set_name), set_name, system, limit, half=half)


def written_out(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config node of prompts; if it names a set of this lab, then the equal node of `inline`.

    So the id of a cell depends on the prompts and not on the file that they are in.
    """
    if node["_target_"] != f"{__package__}.{of_this_lab.__name__}":
        return node
    others = {key: value for key, value in node.items() if key not in ("_target_", "set_name")}
    records = _records_of_this_lab(node.get("set_name"))
    return {"_target_": f"{__package__}.{inline.__name__}", **others, "prompts": records}


def _records_of_this_lab(set_name: object) -> list[dict[str, Any]]:
    names = sorted(path.stem for path in (CONFIG / "prompts").glob("*.jsonl"))
    if not isinstance(set_name, str) or set_name not in names:
        raise InputError(f"prompts.set_name must be one of {', '.join(names)}, got {set_name!r}")
    return _read_once(str(CONFIG / "prompts" / f"{set_name}.jsonl"))


@cache
def _read_once(path: str) -> list[dict[str, Any]]:
    return read_records(path)


def from_file(
    path: str,
    *,
    column: str = "text",
    system: str | None = None,
    limit: int | None = None,
    half: Half | None = None,
) -> list[Prompt]:
    """Prompts from a .jsonl, .csv or .parquet file (one record per prompt) or a .txt file (one per line).

    Text files are in UTF-8, with or without a byte-order mark. Empty lines are skipped. A field of a record
    is ignored if a prompt has no field of that name. The other fields are as in `inline`.

    Args:
        path: the file.
        column: name of the field that holds the text.
        system, limit, half: as in `inline`.

    Raises:
        InputError: the file cannot be read, or one of the reasons given at `inline`.
    """
    return make_prompts(
        select_fields(read_records(path), column, path), path, system, limit, column, half=half
    )


def from_dataset(
    name: str,
    *,
    data_files: str | Sequence[str] | Mapping[str, Any] | None = None,
    column: str = "text",
    split: str = "test[:100]",
    config: str | None = None,
    system: str | None = None,
    limit: int | None = None,
    half: Half | None = None,
) -> list[Prompt]:
    """Prompts from a column of a dataset, read with the datasets library.

    Args:
        name: a dataset on the hub, a folder, or a builder such as "json".
        data_files: the files that a builder reads: a path, a list of paths, or a mapping from the name of a
            split to paths. Paths without a split are in the split "train".
        split: which records to read, in the slicing syntax of the datasets library, such as "test[:100]".
        config: name of the dataset's configuration, if the dataset has several.
        column, system, limit, half: as in `from_file`.

    Raises:
        InputError: the dataset cannot be loaded, or one of the reasons given at `inline`.
    """
    from datasets import load_dataset  # pyright: ignore[reportUnknownVariableType]
    from datasets.packaged_modules import (
        _PACKAGED_DATASETS_MODULES,  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
    )

    if name in _PACKAGED_DATASETS_MODULES and data_files is None:
        # The library would read every file of the current folder.
        raise InputError(
            f"prompts.name is {name!r}, which reads files; set prompts.data_files to their paths"
        )
    try:
        with _warnings_of_datasets():
            records: Any = load_dataset(name, config, data_files=data_files, split=split)
    except Exception as error:  # the library raises many types, several of them its own
        # The cause says what is wrong with a record. A list of 60 file extensions is left out.
        reason = reason_of(error.__cause__ or error).partition(" with any supported extension")[0]
        settings = {"config": config, "data_files": data_files}
        others = "".join(f", {key} {value!r}" for key, value in settings.items() if value is not None)
        raise InputError(
            f"prompts.name is {name!r} with split {split!r}{others}, which could not be loaded: {reason}"
        ) from error
    return make_prompts(select_fields(records, column, name), name, system, limit, column, half=half)


@contextmanager
def _warnings_of_datasets() -> Generator[None]:
    """Show what the datasets library logs as a warning, such as reading a copy from its cache."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.warn(f"prompts=dataset: {record.getMessage()}", stacklevel=2)
    logger = logging.getLogger("datasets")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
