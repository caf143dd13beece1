"""Loading the tokenizer of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, cast

from transformers import AutoTokenizer

from cfg_lab.errors import InputError, errors_of_libraries
from cfg_lab.models.checkpoint.weights import file_of

_SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm")
_OTHER_FILES = ("tokenizer.json", "tekken.json", *_SENTENCEPIECE_FILES)
"""Files of tokenizers, beside those that the tokenizer's class names."""


def load_tokenizer(name: str, location: str, arguments: Mapping[str, Any]) -> Any:
    """Load the tokenizer of a model.

    Args:
        name: name of the model, for messages of errors.
        location: a local folder or a hub id.
        arguments: arguments of `from_pretrained` that say which files to read.

    Raises:
        InputError: the model has no tokenizer, its files cannot be read, or a package is missing.
    """
    revision = arguments.get("revision")

    def existing(files: Iterable[str]) -> list[str]:
        return [file for file in files if file_of(location, file, revision)]

    with errors_of_libraries(f"the tokenizer of model {name!r} cannot be loaded"):
        try:
            tokenizer: Any = cast("Any", AutoTokenizer).from_pretrained(location, **arguments)
        except Exception as error:
            files = existing(_SENTENCEPIECE_FILES)
            if files and find_spec("sentencepiece") is None:
                raise InputError(
                    f"the tokenizer of model {name!r} ({files[0]}) needs the package sentencepiece; "
                    "install it with pip install sentencepiece"
                ) from error
            if not existing(_OTHER_FILES):
                raise InputError(_no_tokenizer(name)) from error
            raise
    if arguments.get("gguf_file") is not None:
        return tokenizer
    # transformers makes tokenizers of some classes without any file, with an almost empty vocabulary.
    files_of_class: Mapping[str, str] = getattr(tokenizer, "vocab_files_names", {})
    if files_of_class and not existing([*files_of_class.values(), *_OTHER_FILES]):
        raise InputError(_no_tokenizer(name))
    return tokenizer


def _no_tokenizer(name: str) -> str:
    return (
        f"model {name!r} has no tokenizer; save the tokenizer that it was trained with to the same place "
        "(tokenizer.save_pretrained)"
    )
