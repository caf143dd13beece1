"""Fingerprints: hashes that identify the weights of a model, used in the id of every text.

There are two kinds. Weights in files are identified by the content of the files, which is fast (0.1 s for
540 MB). Weights in memory are identified by the values of the parameters. The same weights
therefore have one fingerprint as files and another one in memory.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
import xxhash
from transformers import dynamic_module_utils

from cfg_lab.errors import errors_of_libraries
from cfg_lab.models.checkpoint.placement import state_of

_BYTES_PER_READ = 1 << 22
_HUB_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""SHA-1 or SHA-256 in hexadecimal digits: the names of files in the `blobs` folder of the hub's cache."""

_AUTO_CLASSES = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
"""Classes of transformers that can run the Python code of a checkpoint."""


def fingerprint_of_files(files: Sequence[Path], config: Any, settings: Mapping[str, Any]) -> str:
    """Fingerprint of weights that are in files: 32 hexadecimal digits.

    Where the files lie does not matter. One exception: a file in the cache of the Hugging Face hub is
    identified by the hub's own hash of the file, so a copy in another folder has another fingerprint.

    Args:
        files: every weight file of the checkpoint, in a fixed order.
        config: the transformers config.
        settings: other settings that change what the model computes, such as its dtype. Plain JSON values.
    """
    content = {
        "config": _content_of_config(config),
        "weights": [content_hash(file) for file in files],
        "settings": dict(settings),
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True, default=str).encode())


def fingerprint_of_parameters(model: Any) -> str:
    """Fingerprint of a transformers model in memory: 32 hexadecimal digits.

    It is a hash of the config and of the name, shape, dtype and values of every parameter and buffer.
    """
    digest = xxhash.xxh3_128()
    digest.update(json.dumps(_content_of_config(model.config), sort_keys=True, default=str).encode())
    for name, tensor in state_of(model).items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # A tensor without dimensions cannot be viewed as bytes, so it becomes a vector first.
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()


def content_hash(file: Path) -> str:
    """Hash of a file's content.

    A file in the cache of the Hugging Face hub is not read, because its name is a hash of its content.
    """
    target = file.resolve()
    if target.parent.name == "blobs" and _HUB_HASH.fullmatch(target.name):
        return target.name
    status = target.stat()
    return _hash_of_bytes(target, status.st_size, status.st_mtime_ns)


def hash_of_remote_code(config: Any, location: str, revision: str | None) -> str | None:
    """Hash of the checkpoint's own Python files, which transformers runs; None if it runs none.

    Args:
        config: the transformers config, whose `auto_map` names the classes.
        location: a local folder or a hub id.
        revision: branch, tag or commit of a hub id; None is the main branch.

    Raises:
        InputError: the code cannot be loaded.
    """
    code: Mapping[str, str] = getattr(config, "auto_map", None) or {}
    modules = cast("Any", dynamic_module_utils)
    digest = xxhash.xxh3_128()
    with errors_of_libraries(f"the Python code of model {location!r} cannot be loaded"):
        for reference in (code[name] for name in _AUTO_CLASSES if name in code):
            loaded = modules.get_class_from_dynamic_module(reference, location, revision=revision)
            file = inspect.getfile(loaded)
            for path in sorted([file, *modules.get_relative_import_files(file)]):
                digest.update(Path(path).name.encode())
                digest.update(Path(path).read_bytes())
    return digest.hexdigest() if code else None


@lru_cache(maxsize=1024)
def _hash_of_bytes(file: Path, size: int, modified_ns: int) -> str:
    """xxh3 of a file's bytes, remembered until the file's size or time of modification changes."""
    digest = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while chunk := stream.read(_BYTES_PER_READ):
            digest.update(chunk)
    return digest.hexdigest()


def _content_of_config(config: Any) -> dict[str, Any]:
    """The config as plain data, without the path of its file and the transformers version that wrote it."""
    content = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
    content.pop("transformers_version", None)
    return content
