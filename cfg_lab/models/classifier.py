"""Text classifiers, from a local folder or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cfg_lab.errors import InputError


def load_classifier(name: str, label: str) -> Callable[[Sequence[str]], list[float]]:
    """A `text-classification` pipeline as a function from texts to the probability of `label`, in [0, 1].

    Raises:
        InputError: there is no such classifier, or it does not have the label.
    """
    from transformers import pipeline  # takes a second to import, and few studies use it

    try:
        classify: Any = pipeline("text-classification", model=name, top_k=None)
    except (OSError, ValueError) as error:
        raise InputError(
            f"metrics: {name!r} is neither a folder with a classifier nor a reachable hub id: "
            f"{str(error).splitlines()[0]}"
        ) from error
    labels = list(classify.model.config.id2label.values())
    if label not in labels:
        raise InputError(f"metrics: classifier {name!r} has no label {label!r}; it has {', '.join(labels)}")

    def probabilities(texts: Sequence[str]) -> list[float]:
        results = classify(list(texts), truncation=True)
        return [next(entry["score"] for entry in scores if entry["label"] == label) for scores in results]

    return probabilities
