"""The role of each metric on the page: an aim, a price, or neither.

An aim is a metric that guidance is meant to improve. A price is a metric that guidance can make worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.known_columns import column_info

PRICES = ("fluency", "diversity", "toxicity", "relevance")
"""Families of metrics that guidance can make worse, in the order in which the page names them.

The metrics of one family measure nearly the same.
"""


@dataclass(frozen=True)
class Roles:
    """The metrics of some results, grouped by their role.

    Attributes:
        aims: metrics that guidance is meant to improve. The page's question is about the first of them.
        prices: metrics that guidance can make worse, at most one per family.
        others: all other metrics.
    """

    aims: tuple[str, ...]
    prices: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def primary(self) -> tuple[str, ...]:
        """The aims and prices. One Holm correction covers the comparisons of all these metrics."""
        return self.aims + self.prices


def roles_of(metrics: Sequence[str]) -> Roles:
    """Group metrics by the roles that they declare.

    - A metric is a price if its role is one of the families in PRICES. Metrics of one family measure nearly
      the same, so only the metric with the lowest declared rank (`ColumnInfo.rank`) is a price.
    - A metric is an aim if it declares the role "aim". Aims are ordered by their declared rank. If no metric
      declares this role, one price becomes the only aim: the price of the family "toxicity", or the first
      price if there is none of that family.
    - If neither higher nor lower values of a metric are better, the metric is never an aim or a price.

    Roles depend on the names of the metrics, never on their scores. So the number of comparisons that Holm's
    correction covers does not depend on scores either.
    """
    directed = [name for name in metrics if column_info(name).better is not None]
    aims = [name for name in directed if column_info(name).role == "aim"]
    aims.sort(key=lambda name: column_info(name).rank)
    prices: list[str] = []
    for family in PRICES:
        members = [name for name in directed if column_info(name).role == family]
        prices += sorted(members, key=lambda name: column_info(name).rank)[:1]
    if not aims and prices:
        aims = [next((name for name in prices if column_info(name).role == "toxicity"), prices[0])]
        prices = [name for name in prices if name not in aims]
    others = [name for name in metrics if name not in aims and name not in prices]
    return Roles(tuple(aims), tuple(prices), tuple(others))
