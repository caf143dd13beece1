"""Loading a transformers model whose weights are all in its checkpoint."""

from __future__ import annotations

import logging
from typing import Any

from transformers import modeling_utils

from cfg_lab.errors import InputError
from cfg_lab.models.library_errors import errors_of_libraries

# transformers logs a table of missing and unexpected weights. Missing weights are an error here. Unexpected
# weights are common, such as those of a training head, and change no text.
logging.getLogger(modeling_utils.__name__).addFilter(lambda record: "LOAD REPORT" not in record.getMessage())


def load_pretrained(auto_class: Any, location: str, subject: str, **arguments: Any) -> Any:
    """Load a transformers model, and check that its checkpoint has every weight of it.

    transformers gives weights that are missing in a checkpoint random values. This happens for the output
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
