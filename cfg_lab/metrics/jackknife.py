"""A number of a whole set of texts, as values of its texts: its mean is the number, its spread the error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cfg_lab.metrics.text import Text


def spread(texts: Sequence[Text], statistic: Callable[[list[int]], float]) -> list[float]:
    """Centred jackknife pseudo-values, leaving out one prompt at a time.

    With m prompts, θ the statistic of all texts and θ₋ᵢ without those of prompt i, a text of prompt i gets
    θ + (m - 1)(θ̄₋ - θ₋ᵢ). The mean over texts is θ itself, and the usual interval of that mean, with prompts
    as clusters, is the jackknife's (Tukey 1958; Efron & Tibshirani 1993, ch. 11). One prompt alone gets θ
    and no interval.

    Args:
        statistic: of the texts at the given places; called 1 + m times.
    """
    whole = statistic(list(range(len(texts))))
    prompts = [text.prompt.id for text in texts]
    if len(set(prompts)) < 2:
        return [whole] * len(texts)
    without = {
        left_out: statistic([place for place, prompt in enumerate(prompts) if prompt != left_out])
        for left_out in dict.fromkeys(prompts)
    }
    centre = sum(without[prompt] for prompt in prompts) / len(texts)
    return [whole + (len(without) - 1) * (centre - without[prompt]) for prompt in prompts]
