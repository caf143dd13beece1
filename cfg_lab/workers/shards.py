"""Cuts the unfinished texts of a sweep into shards: the texts that a worker decodes together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cfg_lab.study.planned_text import PlannedText
from cfg_lab.study.run import PreparedStudy


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """Texts of one model that one worker decodes and scores.

    Attributes:
        model_key: key of the model, see `StoredCell.model_key`.
        fingerprint: the model's fingerprint on the machine that planned the sweep. The ids of the texts
            contain it, so a worker must have the same model.
        texts: the texts. Texts with the same id and different references are scored one by one.
    """

    model_key: str
    fingerprint: str
    texts: tuple[PlannedText, ...]

    @property
    def completion_ids(self) -> list[str]:
        """The ids of the texts, each once."""
        return list(dict.fromkeys(text.completion_id for text in self.texts))


def cut(
    prepared: PreparedStudy, unfinished: Collection[str], decoded: Collection[str], count: int
) -> list[Shard]:
    """Cut the unfinished texts into shards of about equal cost.

    Texts with the same prompt are neighbours, so that their contexts are read once. A shard has texts of one
    model.

    Args:
        prepared: the study.
        unfinished: ids of the texts to decode or to score.
        decoded: ids of texts that are decoded. They only have to be scored.
        count: number of shards, at least 1. There are fewer if there are fewer texts, and more if there are
            more models.
    """
    texts_by_model = {key: _texts_by_id(prepared, key, unfinished) for key in prepared.models}
    cost_by_model = {
        key: [_cost(texts[0], texts[0].completion_id in decoded) for texts in by_id]
        for key, by_id in texts_by_model.items()
    }
    total = sum(map(sum, cost_by_model.values()))
    shards: list[Shard] = []
    for key, by_id in texts_by_model.items():
        costs = cost_by_model[key]
        share = max(1, round(count * sum(costs) / total)) if total else 1
        for part in _parts(costs, share):
            texts = tuple(text for number in part for text in by_id[number])
            fingerprint = prepared.models[key].fingerprint
            shards.append(Shard(model_key=key, fingerprint=fingerprint, texts=texts))
    return shards


def _texts_by_id(
    prepared: PreparedStudy, model_key: str, unfinished: Collection[str]
) -> list[list[PlannedText]]:
    """The unfinished texts of a model: one list per completion id, in the order of their prompts.

    The texts of a list have the same completion and different score ids.
    """
    by_id: dict[str, dict[str, PlannedText]] = {}
    for cell, texts in prepared.plans.items():
        if cell.model_key == model_key:
            for text in texts:
                if text.completion_id in unfinished:
                    by_id.setdefault(text.completion_id, {})[text.score_id] = text
    first_place: dict[tuple[int, ...], int] = {}
    for texts in by_id.values():
        first_place.setdefault(next(iter(texts.values())).request.positive, len(first_place))
    groups = [list(texts.values()) for texts in by_id.values()]
    return sorted(groups, key=lambda texts: first_place[texts[0].request.positive])


def _cost(text: PlannedText, decoded: bool) -> float:
    """Estimated cost of a text, in tokens that a model reads one by one.

    Tokens of a context are read together, which is cheaper: about 16 cost as much as one new token. So does
    scoring.
    """
    request = text.request
    scoring = request.max_new_tokens / 16
    if decoded:
        return scoring
    contexts = request.contexts
    reading = sum(len(ids) for _, ids in contexts) / 16
    return reading + len(contexts) * request.beams * request.max_new_tokens + scoring


def _parts(costs: Sequence[float], count: int) -> list[list[int]]:
    """Cut a sequence of items into `count` runs of about equal cost, without empty runs.

    Returns:
        For each run, the positions of its items.
    """
    total, before = sum(costs), 0.0
    runs: Mapping[int, list[int]] = {number: [] for number in range(count)}
    for position, cost in enumerate(costs):
        middle = before + cost / 2
        runs[min(count - 1, int(count * middle / total))].append(position)
        before += cost
    return [run for run in runs.values() if run]
