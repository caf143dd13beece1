"""Running a benchmark: plan every item, score the answers of the missing ones, and choose one of each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from rich.console import Console

from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.continuation_scores import ContinuationScore
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.trace import TRACE_FIELDS, Trace
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance, Guidance
from cfg_lab.metrics.multiple_choice import best
from cfg_lab.metrics.text import Choice
from cfg_lab.models import LanguageModel
from cfg_lab.study.columns import CELL_COLUMNS, COMPLETION_COLUMNS, Decoded, row
from cfg_lab.study.formats import three_digits
from cfg_lab.study.pairs import check_raw, raw_log_likelihood
from cfg_lab.study.planned_text import PlannedText
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.run import check_models, write_provenance
from cfg_lab.study.scoring import score_missing
from cfg_lab.tasks.benchmark import Benchmark, BenchmarkCell
from cfg_lab.tasks.item import task_label
from cfg_lab.tasks.load import load_items
from cfg_lab.tasks.plan import PlannedItem, groups_of, plan

_ANSWERS_PER_CALL = 64
"""Answers that are scored by one call of the decoder: enough for a full batch, few enough to lose little."""

_SECONDS_BETWEEN_WRITES = 15
"""Longest time between two writes of results."""

_NEGATIVES_ALONE = ClassifierFreeGuidance(scale=0)

Group = list[BenchmarkCell]


def run_benchmark(benchmark: Benchmark, console: Console) -> None:
    """Score every item of a benchmark that is not in its results folder yet.

    Everything is checked before anything is written.

    Raises:
        InputError: something in the benchmark is wrong; nothing was written.
        StoreError: a file cannot be read or written; what was finished before is kept.
        NotANumberError: the model's logits are not numbers; what was finished before is kept.
    """
    store = benchmark.store
    store.check_version()
    groups = groups_of(benchmark.cells)
    items = {
        key: load_items(*key) for key in dict.fromkeys((cell.task, cell.options) for cell in benchmark.cells)
    }
    loaders = {cell.model_key: cell.model for cell in benchmark.cells}
    models = {key: load() for key, load in loaders.items()}
    plans = [
        (group, plan(group, items[group[0].task, group[0].options], models[group[0].model_key]))
        for group in groups
    ]
    scored_ids = store.completion_ids()
    missing: dict[str, list[tuple[Group, list[PlannedItem]]]] = {key: [] for key in models}
    for group, planned in plans:
        unscored = [item for item in planned if not _is_scored(item, scored_ids)]
        if unscored:
            missing[group[0].model_key].append((group, unscored))
    check_models(benchmark, models, missing)
    store.check_writable()
    total = sum(len(planned) for _, planned in plans)
    left = sum(len(unscored) for of_model in missing.values() for _, unscored in of_model)
    if left < total:
        console.print(f"{total - left} of {total} items are in {store.root} already", highlight=False)
    write_provenance(benchmark)
    for group, planned in plans:
        for number, cell in enumerate(group):
            rows = [row(CELL_COLUMNS, item.results[number]) for item in planned]
            store.write_cell(cell.id, cell.settings, rows)
    _score(benchmark, models, missing, console)
    score_missing(store, benchmark.metrics, console, {cell.id for cell in benchmark.cells})


def _is_scored(item: PlannedItem, scored_ids: set[str]) -> bool:
    return all(result.completion_id in scored_ids for result in item.results)


def _score(
    benchmark: Benchmark,
    models: Mapping[str, LanguageModel],
    missing: Mapping[str, Sequence[tuple[Group, Sequence[PlannedItem]]]],
    console: Console,
) -> None:
    """Score the missing items: one model after another, all guidance rules of an item at once."""
    total = sum(
        len(item.requests) for of_model in missing.values() for _, items in of_model for item in items
    )
    if not total:
        return
    begin = time.monotonic()
    with ProgressBar(console, "scoring", total, "answers") as bar:
        for key, of_model in missing.items():
            for group, items in of_model:
                _score_group(benchmark, models[key], group, items, bar)
            models[key].unload()
    seconds = time.monotonic() - begin
    count = sum(len(items) for of_model in missing.values() for _, items in of_model)
    console.print(
        f"scored   {count:,} items in {seconds:,.0f} s, {three_digits(seconds / count)} s per item for all "
        "guidance rules together",
        highlight=False,
    )


def _score_group(
    benchmark: Benchmark,
    model: LanguageModel,
    group: Group,
    items: Sequence[PlannedItem],
    bar: ProgressBar,
) -> None:
    """Score items under all rules of a group, and store the results."""
    decoder = Decoder(model, other_models=group[0].negatives.other_models())
    guidances = [cell.guidance for cell in group]
    unwritten: dict[str, dict[str, Any]] = {}  # by id; results of cells in which guidance is off are equal
    last_write_time = time.monotonic()
    try:
        for batch in _batches(items):
            for item, scores in _scores(decoder, model, batch, guidances, bar):
                for number, (result, guidance) in enumerate(zip(item.results, guidances, strict=True)):
                    decoded = _decoded(item, result, guidance, number, scores, decoder)
                    unwritten[result.completion_id] = row(COMPLETION_COLUMNS, decoded)
            bar.advance(0, note=f"{task_label(group[0].task)}, {model.name}")
            if time.monotonic() - last_write_time > _SECONDS_BETWEEN_WRITES:
                benchmark.store.add_completions(list(unwritten.values()))
                unwritten, last_write_time = {}, time.monotonic()
    finally:
        if unwritten:  # also after an interruption
            benchmark.store.add_completions(list(unwritten.values()))


def _batches(items: Sequence[PlannedItem]) -> Iterator[list[PlannedItem]]:
    """Batches of about _ANSWERS_PER_CALL answers.

    Items of similar length are in one batch. The longest items come first.
    """
    batch: list[PlannedItem] = []
    for item in sorted(items, key=lambda item: -len(item.requests[0].positive)):
        batch.append(item)
        if sum(len(item.requests) for item in batch) >= _ANSWERS_PER_CALL:
            yield batch
            batch = []
    if batch:
        yield batch


def _scores(
    decoder: Decoder,
    model: LanguageModel,
    batch: Sequence[PlannedItem],
    guidances: Sequence[Guidance],
    bar: ProgressBar,
) -> Iterator[tuple[PlannedItem, list[ContinuationScore]]]:
    """The scores of the answers of each item in a batch."""
    requests = [request for item in batch for request in item.requests]
    continuations = [continuation for item in batch for continuation in item.continuations]
    finished = 0

    def advance(count: int) -> None:
        nonlocal finished
        bar.advance(count - finished)
        finished = count

    try:
        scores = iter(decoder.score(requests, continuations, guidances, on_item=advance))
    except NotANumberError as error:
        item = next(item for item in batch if error.request in item.requests)
        raise NotANumberError(f"{model.name} (item {item.item.id})", error.request, error.step) from error
    for item in batch:
        yield item, [next(scores) for _ in item.requests]


def _decoded(
    item: PlannedItem,
    result: PlannedText,
    guidance: Guidance,
    number: int,
    scores: Sequence[ContinuationScore],
    decoder: Decoder,
) -> Decoded:
    """What is stored of an item in one cell: the scores of all answers, and the answer with the highest one.

    Args:
        item: the item.
        result: the plan of the item's result in the cell.
        guidance: the rule of the cell.
        number: number of the rule in the scores.
        scores: one score per answer.
        decoder: has the models of the branches by name.
    """
    choices = tuple(
        Choice(
            text=answer,
            right=right,
            tokens=len(continuation),
            positive=score.positive,
            negative=_negative(request, score),
            guided=score.guided[number],
            raw=_raw(guidance, request, score) if result.request.branches else score.positive,
            greedy=score.greedy[number],
        )
        for answer, right, request, continuation, score in zip(
            item.item.answers, item.item.right, item.requests, item.continuations, scores, strict=True
        )
    )
    chosen = best([choice.guided for choice in choices])
    tokens = item.continuations[chosen]
    request = result.request
    steps = len(tokens)
    completion = Completion(
        request=request,
        tokens=tokens,
        finish_reason="stop",
        trace=Trace(**dict.fromkeys(TRACE_FIELDS, ())),
        steps=steps,
        negative_steps=steps if request.branches else 0,
    )
    models = tuple(cast("LanguageModel", decoder.models[name]) for name, _ in request.contexts)
    return Decoded(
        planned=result, completion=completion, models=models, text=choices[chosen].text, choices=choices
    )


def _negative(request: Request, score: ContinuationScore) -> float:
    """The log-prob under the negatives: the unnormalised score at scale 0; NaN without negatives."""
    return raw_log_likelihood(_NEGATIVES_ALONE, request, score) if request.negatives else math.nan


def _raw(guidance: Guidance, request: Request, score: ContinuationScore) -> float:
    """The unnormalised score; NaN if the rule is not plain classifier-free guidance."""
    try:
        return raw_log_likelihood(check_raw(guidance), request, score)
    except InputError:
        return math.nan
