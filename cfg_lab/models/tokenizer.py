"""Loading the tokenizer of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, cast

from transformers import AutoTokenizer

from cfg_lab.errors import InputError
from cfg_lab.models.library_errors import errors_of_libraries
from cfg_lab.models.weight_files import file_of

_SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm")
_OTHER_FILES = ("tokenizer.json", "tekken.json", *_SENTENCEPIECE_FILES)
"""Files of tokenizers, beside those that the tokenizer's class names."""


def load_tokenizer(name: str, location: str, arguments: Mapping[str, Any]) -> Any:
    """The tokenizer of a model.

    Args:
        name: name of the model, for messages of errors.
        location: a local folder or a hub id.
        arguments: arguments of `from_pretrained` that say which files to read.

    Raises:
        InputError: the model has no tokenizer, its files cannot be read, or a package is missing.
    """
    revision = arguments.get("revision")
    with errors_of_libraries(f"the tokenizer of model {name!r} cannot be loaded"):
        try:
            tokenizer: Any = cast("Any", AutoTokenizer).from_pretrained(location, **arguments)
        except Exception as error:
            files = [file for file in _SENTENCEPIECE_FILES if file_of(location, file, revision)]
            if files and find_spec("sentencepiece") is None:
                raise InputError(
                    f"the tokenizer of model {name!r} ({files[0]}) needs the package sentencepiece; "
                    "install it with pip install sentencepiece"
                ) from error
            if not any(file_of(location, file, revision) for file in _OTHER_FILES):
                raise InputError(_no_tokenizer(name)) from error
            raise
    if "gguf_file" in arguments:
        return tokenizer
    # Without its files, a tokenizer of some classes is made all the same, with an almost empty vocabulary.
    files_of_class: Mapping[str, str] = getattr(tokenizer, "vocab_files_names", {})
    expected = (*files_of_class.values(), *_OTHER_FILES)
    if files_of_class and not any(file_of(location, file, revision) for file in expected):
        raise InputError(_no_tokenizer(name))
    return tokenizer


def _no_tokenizer(name: str) -> str:
    return (
        f"model {name!r} has no tokenizer; save the tokenizer that it was trained with to the same place "
        "(tokenizer.save_pretrained)"
    )
