"""The files of a checkpoint: which files transformers reads, and whether they are whole."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    hub,
)

from cfg_lab.errors import InputError
from cfg_lab.models.library_errors import errors_of_libraries

_WEIGHT_FILES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
"""In the order in which transformers looks for them. An index lists the files of weights in several files."""


def file_of(location: str, name: str, revision: str | None = None) -> Path | None:
    """The path of a checkpoint's file; None if the checkpoint has no such file.

    A file of a hub repository is downloaded.

    Args:
        location: a local folder or a hub id.
        name: name of the file.
        revision: branch, tag or commit of the hub repository; None is its main branch.
    """
    if Path(location).is_dir():
        path = Path(location, name)
        return path if path.is_file() else None
    path = cast("Any", hub).cached_file(
        location, name, revision=revision, _raise_exceptions_for_missing_entries=False
    )
    return None if path is None else Path(path)


def weight_files(location: str, revision: str | None = None) -> list[Path] | None:
    """The files that transformers reads a checkpoint's weights from; None if it has none or one is missing.

    Raises:
        InputError: the index of weights in several files cannot be read.
    """
    for name in _WEIGHT_FILES:
        path = file_of(location, name, revision)
        if path is None:
            continue
        if not name.endswith(".index.json"):
            return [path]
        with errors_of_libraries(f"the weights of model {location!r} cannot be loaded: {name} is broken"):
            shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        files = [file_of(location, shard, revision) for shard in shards]
        return None if None in files else cast("list[Path]", files)
    return None


def check_whole(file: Path, subject: str) -> None:
    """Raise InputError if a weight file is cut off or is no weight file. Reads only its first and last bytes.

    Args:
        file: a file in the format of safetensors or of `torch.save`.
        subject: begins the message of an error, such as "model 'x'".
    """
    with errors_of_libraries(f"the weights of {subject} cannot be loaded: {file.name} is broken"):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):  # checks the header, and that the file has the size it says
                return
        with file.open("rb") as stream:
            start = stream.read(4)
        # Since 2020 `torch.save` writes a zip file. The directory of a zip file is at its end.
        if not start or (start == b"PK\x03\x04" and not zipfile.is_zipfile(file)):
            raise InputError(
                f"the weights of {subject} cannot be loaded: {file.name} is broken: the file is cut off"
            )
