"""How many rows and columns of the KV caches requests need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cfg_lab.decoding.model import CausalModel, context_after
from cfg_lab.decoding.request import Request


class RowNeeds(NamedTuple):
    """What requests need of one model.

    Attributes:
        rows: number of rows if all requests run at once.
        length: number of tokens of the longest row, with all new tokens.
    """

    rows: int
    length: int


def most_rows(request: Request) -> Counter[str | None]:
    """The largest number of rows that a request can need, for each model: model name -> number of rows."""
    return Counter([name for name, _ in request.contexts] * request.beams)


def widest_request(requests: Iterable[Request]) -> int:
    """The smallest `max_rows` with which each of these requests can run if it runs alone.

    It is the largest number of rows of one model that a request can need.
    """
    return max((max(most_rows(request).values()) for request in requests), default=1)


def row_needs(
    models: Mapping[str | None, CausalModel], requests: Iterable[Request]
) -> dict[str | None, RowNeeds]:
    """What requests need of each model: model name -> needs. Models that no request uses are left out."""
    rows: Counter[str | None] = Counter()
    lengths: Counter[str | None] = Counter()
    for request in requests:
        rows += most_rows(request)
        for name, ids in request.contexts:
            length = len(context_after(models[name], ids, ()).ids) + request.max_new_tokens
            lengths[name] = max(lengths[name], length)
    return {name: RowNeeds(count, lengths[name]) for name, count in rows.items()}
