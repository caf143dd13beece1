"""What each metric stands for in the answer: the aim, the price, or an observation beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab import analysis

# By how a column's name begins, the most telling first. One column of each family is in the main comparison:
# the others of the family say nearly the same again, and would only dilute it.
FAMILIES: dict[str, tuple[str, ...]] = {
    "fluency": ("perplexity", "bits_per", "evaluator"),
    "diversity": ("distinct", "self_bleu", "vendi", "mauve"),
    "toxicity": ("toxicity",),
    "relevance": ("relevance",),
    "form": (
        "length",
        "words",
        "stopped",
        "degenerate",
        "repeat",
        "longest_repeat",
        "compression",
        "language",
    ),
}


@dataclass(frozen=True)
class Roles:
    """Metrics by what they stand for; all keep the order of the results.

    Attributes:
        aims: what guidance is for; every metric with a better direction that is in no family.
        prices: one metric each of fluency, diversity, toxicity and relevance.
        others: the rest: second metrics of a family, forms such as length, metrics without a direction.
    """

    aims: tuple[str, ...]
    prices: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def primary(self) -> tuple[str, ...]:
        """The family of the main comparison, over which Holm's correction runs."""
        return self.aims + self.prices


def roles_of(metrics: Sequence[str]) -> Roles:
    """Roles by name alone, so that what is corrected for does not depend on what came out.

    Where no metric is an aim, toxicity is the aim, else the first price.
    """
    aims = [name for name in metrics if _family(name) is None and analysis.better(name)]
    prices: list[str] = []
    for family in ("fluency", "diversity", "toxicity", "relevance"):
        directed = [name for name in metrics if _family(name) == family and analysis.better(name)]
        prices += sorted(directed, key=lambda name: _rank(name, FAMILIES[family]))[:1]
    if not aims and prices:
        aims = [next((name for name in prices if _family(name) == "toxicity"), prices[0])]
        prices = [name for name in prices if name not in aims]
    others = [name for name in metrics if name not in aims and name not in prices]
    return Roles(tuple(aims), tuple(prices), tuple(others))


def _family(metric: str) -> str | None:
    return next((family for family, starts in FAMILIES.items() if metric.startswith(starts)), None)


def _rank(metric: str, starts: Sequence[str]) -> int:
    return next(number for number, start in enumerate(starts) if metric.startswith(start))
