"""Python code that comes with a checkpoint. It runs only with `model.trust_remote_code=true`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import xxhash
from transformers import dynamic_module_utils

from cfg_lab.models.library_errors import errors_of_libraries

_AUTO_CLASSES = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM")


def hash_of_remote_code(config: Any, location: str, revision: str | None) -> str:
    """Hash of the Python files that transformers runs for a model; empty if it runs none.

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
    return digest.hexdigest() if code else ""
