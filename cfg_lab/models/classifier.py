"""Text classifiers, from a local folder or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from cfg_lab.errors import InputError, errors_of_libraries
from cfg_lab.models.checkpoint.weights import load_pretrained
from cfg_lab.models.default_device import default_device
from cfg_lab.models.tokenization.tokenizer import load_tokenizer

_BATCH_SIZE_OF_GPU = 64
"""Number of texts of one forward on a GPU. A CPU reads one text after another, without padding."""


def load_classifier(
    name: str, label: str, device: torch.device | None = None
) -> Callable[[Sequence[str]], list[float]]:
    """A `text-classification` pipeline as a function from texts to the probability of `label`, in [0, 1].

    Args:
        name: hub id or folder.
        label: the label, as the config writes it.
        device: where the classifier runs; None is a GPU if there is one, else the CPU.

    Raises:
        InputError: there is no such classifier, its checkpoint has no weights for a classifier, or it does
            not have the label.
    """
    # `pipeline` takes a second to import, and few studies use it.
    from transformers import AutoConfig, AutoModelForSequenceClassification, pipeline

    with errors_of_libraries(
        f"metrics.classifier.model is {name!r}, which is neither a folder with a classifier nor a reachable "
        "hub id"
    ):
        cast("Any", AutoConfig).from_pretrained(name, trust_remote_code=False)
    tokenizer = load_tokenizer(name, name, {"trust_remote_code": False})
    model = load_pretrained(
        AutoModelForSequenceClassification, name, f"classifier {name!r}", trust_remote_code=False
    )
    device = default_device() if device is None else device
    # Texts of different lengths are padded, which not every classifier and tokenizer can do.
    pads = tokenizer.pad_token_id is not None and model.config.get_text_config().pad_token_id is not None
    classify: Any = pipeline(
        "text-classification",
        model=model,
        tokenizer=tokenizer,
        top_k=None,
        device=device,
        batch_size=_BATCH_SIZE_OF_GPU if device.type != "cpu" and pads else 1,
    )
    labels = list(classify.model.config.id2label.values())
    if label not in labels:
        raise InputError(
            f"metrics.classifier.label is {label!r}, but classifier {name!r} has the labels "
            f"{', '.join(labels)}"
        )

    def probabilities(texts: Sequence[str]) -> list[float]:
        # A batch holds texts of similar length, so that there is little padding.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        results = classify([texts[number] for number in order], truncation=True)
        by_number = {
            number: next(entry["score"] for entry in scores if entry["label"] == label)
            for number, scores in zip(order, results, strict=True)
        }
        return [by_number[number] for number in range(len(texts))]

    return probabilities
