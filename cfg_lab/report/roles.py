"""Which columns of scores are the aim of guidance, its price, or shown beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.known_columns import column_info

PRICES = ("fluency", "diversity", "toxicity", "relevance")
"""Families of columns that guidance can make worse, in the order in which the page names them."""


@dataclass(frozen=True)
class Roles:
    """The metrics of some results, grouped by their role. Each group keeps the order of the results.

    Attributes:
        aims: what guidance is used for.
        prices: what guidance can make worse: at most one metric per family.
        others: all other metrics.
    """

    aims: tuple[str, ...]
    prices: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def primary(self) -> tuple[str, ...]:
        """The metrics of the main comparison, for which Holm's correction adjusts the p-values."""
        return self.aims + self.prices


def roles_of(metrics: Sequence[str]) -> Roles:
    """Group metrics by the roles that they declare.

    Only names decide, so the number of corrected comparisons does not depend on the scores. A metric without
    a better direction is never an aim or a price. The metrics of one family say nearly the same, so only the
    one of the lowest rank is a price. If no metric is an aim, toxicity becomes the aim, or else the first
    price.
    """
    directed = [name for name in metrics if column_info(name).better is not None]
    aims = [name for name in directed if column_info(name).role == "aim"]
    prices: list[str] = []
    for family in PRICES:
        members = [name for name in directed if column_info(name).role == family]
        prices += sorted(members, key=lambda name: column_info(name).rank)[:1]
    if not aims and prices:
        aims = [next((name for name in prices if column_info(name).role == "toxicity"), prices[0])]
        prices = [name for name in prices if name not in aims]
    others = [name for name in metrics if name not in aims and name not in prices]
    return Roles(tuple(aims), tuple(prices), tuple(others))
