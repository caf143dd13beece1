"""Turns a statistic of a set of texts, such as MAUVE, into one value per text.

The mean of these values is the statistic. The confidence interval of this mean is the jackknife's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cfg_lab.metrics.text import Text


def pseudo_values(texts: Sequence[Text], statistic: Callable[[list[int]], float]) -> list[float]:
    """Centred jackknife pseudo-values of a statistic, leaving out one prompt at a time.

    There are m prompts. Prompts with the same text and system message count as one prompt. θ is the statistic
    of all texts, θ₋ᵢ is the statistic without the texts of prompt i, and θ̄₋ is the mean of θ₋ᵢ over the
    texts. A text of prompt i gets θ + (m - 1)(θ̄₋ - θ₋ᵢ).

    The mean of these values over the texts is θ. The usual interval of that mean, with prompts as clusters,
    is the jackknife's interval (Tukey 1958; Efron & Tibshirani 1993, ch. 11). If all texts have the same
    prompt, each gets θ, and there is no interval.

    Args:
        texts: all texts of the set.
        statistic: computes a number from the texts at the given indices. It is called for all texts, and once
            without each prompt. If one of these numbers is NaN, all values are NaN.

    Returns:
        One value per text, in order.
    """
    whole = statistic(list(range(len(texts))))
    prompts = [text.distinct_prompt for text in texts]
    if len(set(prompts)) < 2:
        return [whole] * len(texts)
    without = {
        left_out: statistic([index for index, prompt in enumerate(prompts) if prompt != left_out])
        for left_out in dict.fromkeys(prompts)
    }
    centre = sum(without[prompt] for prompt in prompts) / len(texts)
    return [whole + (len(without) - 1) * (centre - without[prompt]) for prompt in prompts]
