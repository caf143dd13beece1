"""Plans a benchmark: the token ids of every answer, and the id under which each result is stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.identity import canonical
from cfg_lab.decoding.request import Request
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel
from cfg_lab.prompts import Prompt
from cfg_lab.study.pairs import requests_of_pairs
from cfg_lab.study.planned_text import PlannedText
from cfg_lab.tasks.benchmark import BenchmarkCell
from cfg_lab.tasks.item import Item


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedItem:
    """One item with a model and its negatives, to be scored under the guidance rules of several cells.

    Attributes:
        item: the item.
        requests: one request per answer, without guidance.
        continuations: the token ids of each answer.
        results: for each cell of the group, the plan of its result.
    """

    item: Item
    requests: tuple[Request, ...]
    continuations: tuple[tuple[int, ...], ...]
    results: tuple[PlannedText, ...]


def groups_of(cells: Sequence[BenchmarkCell]) -> list[list[BenchmarkCell]]:
    """Group the cells that differ in guidance only. Their items are scored once for all rules."""
    groups: dict[tuple[object, ...], list[BenchmarkCell]] = {}
    for cell in cells:
        groups.setdefault((cell.model_key, id(cell.negatives), cell.task, cell.options), []).append(cell)
    return list(groups.values())


def plan(group: Sequence[BenchmarkCell], items: Sequence[Item], model: LanguageModel) -> list[PlannedItem]:
    """Plan the items of a group of cells. Each answer is checked against the model's context length.

    Args:
        group: cells that differ in guidance only, from `groups_of`.
        items: the items of their task.
        model: their model.

    Raises:
        InputError: an answer does not fit into the model, or the negatives of an item cannot be made. The
            message names the item.
    """
    from cfg_lab.integrations.lm_eval import CfgLabModel

    negatives = group[0].negatives
    tokenizer = CfgLabModel(model, negatives=negatives)
    decoder = Decoder(model, other_models=negatives.other_models())
    fingerprint = model.fingerprint
    planned: list[PlannedItem] = []
    for item in items:
        try:
            pairs = [
                tokenizer.pair(context, continuation)
                for context, continuation in zip(item.contexts, item.continuations, strict=True)
            ]
            requests = tuple(requests_of_pairs(model, negatives, pairs))
            continuations = tuple(pair.continuation for pair in pairs)
            for request, continuation in zip(requests, continuations, strict=True):
                decoder.check_score(request, continuation)
        except InputError as error:
            raise InputError(f"tasks: item {item.id!r}: {error}") from error
        results = tuple(_result(cell, item, requests, continuations, fingerprint) for cell in group)
        planned.append(
            PlannedItem(item=item, requests=requests, continuations=continuations, results=results)
        )
    return planned


def _result(
    cell: BenchmarkCell,
    item: Item,
    requests: Sequence[Request],
    continuations: Sequence[tuple[int, ...]],
    fingerprint: str,
) -> PlannedText:
    """The plan of the result of one item in one cell.

    The id of the result names everything that the scores of the answers depend on. Unlike in a sweep, the
    negatives are part of it where guidance is off: pointwise mutual information needs them at every scale.
    """
    request = replace(requests[0], guidance=cell.guidance, max_new_tokens=max(map(len, continuations)))
    parts = [
        *("choices v1", fingerprint, [request.positive for request in requests]),
        *([request.negatives for request in requests], cell.guidance if request.branches else None),
        *(continuations, item.answers, item.right),
    ]
    right = tuple(answer for answer, is_right in zip(item.answers, item.right, strict=True) if is_right)
    return PlannedText(
        prompt=Prompt(id=item.id, text=item.prompt, references=right),
        request=request,
        completion_id=blake2b(json.dumps(canonical(parts)).encode(), digest_size=16).hexdigest(),
    )
