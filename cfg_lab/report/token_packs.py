"""What guidance did at each token, packed so that a browser opens only the texts it shows.

A pack holds the texts of one prompt and sample over all cells: gzipped JSON in base64, as integers of
hundredths of a nat, with the pieces in a dictionary of its own. Packs are made until a budget is spent, in
the order of samples, so that whatever prompt is in is in for all cells.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from cfg_lab.decoding.trace import DISTRIBUTIONS, TRACE_FIELDS

SHARE_OF_TRACES = 0.6  # of the budget, at most, before alternatives are dropped for the traces' sake


@dataclass(frozen=True)
class Packs:
    """Token views as they are embedded.

    Attributes:
        packs: base64 text of each.
        where: completion -> its pack.
        alternatives: whether any pack has the likeliest other tokens.
        note: what was left out and why, for the reader; "" where nothing was.
    """

    packs: tuple[str, ...]
    where: dict[Hashable, int]
    alternatives: bool
    note: str


def pack_tokens(groups: Iterable[Sequence[tuple[Hashable, pd.Series[Any]]]], budget: int) -> Packs:
    """Pack the token traces of completions.

    Args:
        groups: completions (key, row of the results) that are shown together, most wanted first.
        budget: bytes of base64 text, at most.
    """
    packs: list[str] = []
    where: dict[Hashable, int] = {}
    spent = left_out = without = 0
    alternatives = False
    bare = False  # once alternatives have cost too much, traces alone
    for group in groups:
        texts = [(key, row) for key, row in group if key not in where and has_pieces(row)]
        if not texts:
            continue
        if spent >= budget:
            left_out += len(texts)
            continue
        bare = bare or spent > budget * SHARE_OF_TRACES
        packed, rich = _pack(texts, with_alternatives=not bare)
        if spent + len(packed) > budget:
            left_out += len(texts)
            spent = budget
            continue
        alternatives |= rich
        without += len(texts) if bare else 0
        where |= {key: len(packs) for key, _ in texts}
        packs.append(packed)
        spent += len(packed)
    return Packs(
        tuple(packs), where, alternatives, _note(len(where), left_out, without if alternatives else 0)
    )


def has_pieces(row: pd.Series[Any]) -> bool:
    """Whether the text of each token was kept."""
    return "pieces" in row.index and _length(row["pieces"]) > 0


def trace_columns(row: pd.Series[Any]) -> dict[str, list[int | None]]:
    """Traces in hundredths, None where there is nothing; log-probs, all below 0, without their sign."""
    return {
        name: _hundredths(row[f"trace_{name}"], sign=-1 if name in ("guided", "positive", "negative") else 1)
        for name in TRACE_FIELDS
        if f"trace_{name}" in row.index
    }


def _pack(group: Sequence[tuple[Hashable, pd.Series[Any]]], *, with_alternatives: bool) -> tuple[str, bool]:
    """The pack of some texts, and whether it has alternatives."""
    place: dict[str, int] = {}
    texts: dict[str, Any] = {}
    rich = False
    for key, row in group:
        text: dict[str, Any] = {"pieces": [_place(place, piece) for piece in row["pieces"]]}
        text |= trace_columns(row)
        for branch in DISTRIBUTIONS if with_alternatives else ():
            kept = row.get(f"alternatives_{branch}")
            if _length(kept) and any(_length(one) for one in cast("Sequence[Any]", kept)):
                text[f"top_{branch}"] = [_alternatives(place, one) for one in cast("Sequence[Any]", kept)]
                rich = True
        texts[str(key)] = text
    content = json.dumps({"pieces": list(place), "texts": texts}, separators=(",", ":"))
    return base64.b64encode(gzip.compress(content.encode(), 6, mtime=0)).decode(), rich


def _alternatives(place: dict[str, int], tokens: Any) -> list[int]:
    """[piece, hundredths of a nat below 0, piece, …], likeliest first."""
    if not _length(tokens):
        return []
    flat: list[int] = []
    for one in tokens:
        log_prob = float(one["log_prob"])
        if np.isfinite(log_prob):
            flat += [_place(place, one["piece"]), round(-100 * log_prob)]
    return flat


def _place(place: dict[str, int], piece: Any) -> int:
    return place.setdefault(str(piece), len(place))


def _hundredths(values: Any, sign: int) -> list[int | None]:
    if not _length(values):
        return []
    scaled = sign * 100 * np.asarray(values, float)
    return [round(value) if np.isfinite(value) else None for value in scaled.tolist()]


def _length(values: Any) -> int:
    return len(values) if hasattr(values, "__len__") and not isinstance(values, str) else 0


def _note(kept: int, left_out: int, without: int) -> str:
    notes: list[str] = []
    if without:
        notes.append(f"{without:,} of {kept:,} texts are without their alternative tokens")
    if left_out:
        notes.append(f"{left_out:,} of {kept + left_out:,} texts are without token view")
    if not notes:
        return ""
    return f"To keep this page small, {' and '.join(notes)}; write it with a larger --tokens to have them."
