"""Packs the traces of completions for the page. The browser unpacks only the texts that it shows.

A pack holds the texts of one prompt and sample in all cells. It is gzipped JSON in base64:

    {"pieces": [text, …],
     "texts": {completion number: {"pieces": [index, …],
                                   "trace": {field: [hundredths or null, …]},
                                   "alternatives": {distribution: [[index, hundredths of -log-prob, …], …]}}}}

The first "pieces" holds the text of each distinct token; every index refers to this list. Hundredths are
numbers multiplied by 100 and rounded, as log-probs are stored.

Packs are made in the order of samples until a budget is used up. A sample of a prompt is therefore packed for
all cells or for none.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from cfg_lab.decoding.trace import DISTRIBUTIONS
from cfg_lab.report.shown_texts import Traces
from cfg_lab.report.trace_columns import length, packed_trace

TRACES_SHARE = 0.6  # beyond this share of the budget, likeliest tokens are left out so that more traces fit

_TEXTS_PER_READ = 4_000
"""Traces of about this number of texts are read together. They need about 1 GB."""

Completion = tuple[Hashable, str]
"""A key for `Packs.pack_of`, and the id of a completion."""


@dataclass(frozen=True, kw_only=True)
class Packs:
    """The packs that are embedded in the page.

    A pack holds the tokens and traces of one sample of one prompt in all cells.

    Attributes:
        packs: each pack as base64 text.
        pack_of: completion -> number of the pack that holds it.
        alternatives: whether any pack holds the likeliest tokens of each step.
        note: a sentence for the reader about what was left out, and why; "" if nothing was left out.
    """

    packs: tuple[str, ...]
    pack_of: dict[Hashable, int]
    alternatives: bool
    note: str


def pack_tokens(
    groups: Sequence[Sequence[Completion]], traces: Traces, budget: int, first: Collection[str] = ()
) -> Packs:
    """Pack the traces of completions.

    Args:
        groups: groups of completions that are shown beside each other, the most important group first.
        traces: reads the traces of completions.
        budget: largest total length of the packs, in bytes of base64 text.
        first: ids of the completions whose traces are read first, in case that not all can be read.
    """
    packs: list[str] = []
    pack_of: dict[Hashable, int] = {}
    size = left_out = without_alternatives = 0
    any_alternatives = any_pieces = False
    traces_only = False
    for part in _parts(groups):
        ids = [completion for group in part for _, completion in group]
        read = traces(sorted(ids, key=lambda completion: completion not in first)) if size < budget else None
        any_pieces |= read is None or any(length(pieces) for pieces in read.get("pieces", ()))
        for group in part:
            if read is None or size >= budget:
                left_out += len(group)
                continue
            rows: list[tuple[Hashable, Any]] = [
                (key, read.loc[completion]) for key, completion in group if completion in read.index
            ]
            left_out += len(group) - len(rows)
            texts = [(key, row) for key, row in rows if has_pieces(row)]
            if not texts:
                continue
            traces_only = traces_only or size > budget * TRACES_SHARE
            pack, has_alternatives = _pack(texts, with_alternatives=not traces_only)
            if size + len(pack) > budget:
                left_out += len(texts)
                size = budget
                continue
            any_alternatives |= has_alternatives
            without_alternatives += len(texts) if traces_only else 0
            pack_of |= {key: len(packs) for key, _ in texts}
            packs.append(pack)
            size += len(pack)
    return Packs(
        packs=tuple(packs),
        pack_of=pack_of,
        alternatives=any_alternatives,
        note=_note(
            len(pack_of), left_out if any_pieces else 0, without_alternatives if any_alternatives else 0
        ),
    )


def _parts(groups: Sequence[Sequence[Completion]]) -> Iterator[list[Sequence[Completion]]]:
    """Divide groups into parts of about _TEXTS_PER_READ texts."""
    part: list[Sequence[Completion]] = []
    for group in groups:
        part.append(group)
        if sum(map(len, part)) >= _TEXTS_PER_READ:
            yield part
            part = []
    if part:
        yield part


def has_pieces(row: pd.Series[Any]) -> bool:
    """Whether a row of the results holds the text of each token."""
    return "pieces" in row.index and length(row["pieces"]) > 0


def _pack(group: Sequence[tuple[Hashable, pd.Series[Any]]], *, with_alternatives: bool) -> tuple[str, bool]:
    """Return a pack, the compressed tokens and traces of some texts.

    Also return whether the pack holds the likeliest tokens of any step.
    """
    indices: dict[str, int] = {}
    texts: dict[str, Any] = {}
    for key, row in group:
        texts[str(key)] = {
            "pieces": [_index(indices, piece) for piece in row["pieces"]],
            "trace": packed_trace(row),
            "alternatives": _alternatives(row, indices) if with_alternatives else {},
        }
    content = json.dumps({"pieces": list(indices), "texts": texts}, separators=(",", ":"))
    pack = base64.b64encode(gzip.compress(content.encode(), 6, mtime=0)).decode()
    return pack, any(text["alternatives"] for text in texts.values())


def _alternatives(row: pd.Series[Any], indices: dict[str, int]) -> dict[str, list[list[int]]]:
    """Return distribution -> one list per step of a text. Each list holds the step's likeliest tokens.

    A distribution for which the results hold no likeliest tokens is left out.
    """
    columns: dict[str, list[list[int]]] = {}
    for name in DISTRIBUTIONS:
        steps = row.get(f"alternatives_{name}")
        if length(steps) and any(length(step) for step in cast("Sequence[Any]", steps)):
            columns[name] = [_flat(step, indices) for step in cast("Sequence[Any]", steps)]
    return columns


def _flat(step: Any, indices: dict[str, int]) -> list[int]:
    """Return one step's likeliest tokens as [index of the piece, hundredths of -log-prob, index, …]."""
    flat: list[int] = []
    for token in step if length(step) else ():
        log_prob = float(token["log_prob"])
        if np.isfinite(log_prob):
            flat += [_index(indices, token["piece"]), round(-100 * log_prob)]
    return flat


def _index(indices: dict[str, int], piece: Any) -> int:
    """Return the index of a piece, the text of a token. A new piece is first added to `indices`."""
    return indices.setdefault(str(piece), len(indices))


def _note(packed: int, left_out: int, without_alternatives: int) -> str:
    """Say what was left out of the page to keep it small; "" if nothing was left out."""
    notes: list[str] = []
    if without_alternatives:
        notes.append(f"{without_alternatives:,} of {packed:,} texts are without their alternative tokens")
    if left_out:
        notes.append(f"{left_out:,} of {packed + left_out:,} texts are without token view")
    if not notes:
        return ""
    return f"To keep this page small, {' and '.join(notes)}. Write it with a larger --tokens to include them."
