"""Text classifiers, from a local folder or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from cfg_lab.errors import InputError, errors_of_libraries
from cfg_lab.models.checkpoint.weights import load_pretrained
from cfg_lab.models.tokenization.tokenizer import load_tokenizer


def load_classifier(name: str, label: str) -> Callable[[Sequence[str]], list[float]]:
    """A `text-classification` pipeline as a function from texts to the probability of `label`, in [0, 1].

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
    classify: Any = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    labels = list(classify.model.config.id2label.values())
    if label not in labels:
        raise InputError(
            f"metrics.classifier.label is {label!r}, but classifier {name!r} has the labels "
            f"{', '.join(labels)}"
        )

    def probabilities(texts: Sequence[str]) -> list[float]:
        results = classify(list(texts), truncation=True)
        return [next(entry["score"] for entry in scores if entry["label"] == label) for scores in results]

    return probabilities
