"""The weights of a checkpoint: which files hold them, whether the files are whole, and how to load them."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open
from transformers import modeling_utils
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    hub,
)

from cfg_lab.errors import InputError, errors_of_libraries

# transformers logs a table of missing and unexpected weights. Missing weights are an error here. Unexpected
# weights are common, such as those of a training head, and change no text.
logging.getLogger(modeling_utils.__name__).addFilter(lambda record: "LOAD REPORT" not in record.getMessage())

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


def load_pretrained(auto_class: Any, location: str, subject: str, **arguments: Any) -> Any:
    """Load a transformers model whose checkpoint has every weight of it.

    transformers gives random values to weights that are missing in a checkpoint. This happens to the output
    layer if the checkpoint of a classifier is loaded as a language model, or the reverse.

    Args:
        auto_class: a class such as AutoModelForCausalLM.
        location: a local folder or a hub id.
        subject: begins the message of an error, such as "model 'x'".
        arguments: further arguments of `from_pretrained`.

    Raises:
        InputError: the weights cannot be read, or some are missing.
    """
    with errors_of_libraries(f"the weights of {subject} cannot be loaded"):
        model, report = auto_class.from_pretrained(location, output_loading_info=True, **arguments)
    if missing := sorted(report["missing_keys"]):
        names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise InputError(
            f"the checkpoint of {subject} has no weights for {names}, which {type(model).__name__} needs; "
            "it was saved from a model of another kind, or is incomplete"
        )
    return model
