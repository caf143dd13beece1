"""Text classifiers of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cfg_lab.errors import InputError


def load_classifier(name: str, label: str) -> Callable[[Sequence[str]], list[float]]:
    """A `text-classification` pipeline as a function: texts -> probability of `label`, each in [0, 1].

    Raises:
        InputError: there is no such model, or it does not know the label.
    """
    from transformers import pipeline  # a second of imports: for those who use it

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
        answers = classify(list(texts), truncation=True)
        return [next(one["score"] for one in answer if one["label"] == label) for answer in answers]

    return probabilities
