"""Running a study: plan every text of every cell, decode what is missing, score it, keep it, sum it up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from cfg_lab.costs import DecodingCost, in_words
from cfg_lab.decoding import Decoder, NotANumberError
from cfg_lab.models import LanguageModel, peak_memory
from cfg_lab.planning import Cell, Planned, StopStrings, Study, plan
from cfg_lab.progress import Bar
from cfg_lab.records import Completion
from cfg_lab.scoring import prepare, score, summarise
from cfg_lab.store import TRACE

Plans = Mapping[Cell, Sequence[Planned]]


def run(study: Study, console: Console) -> pd.DataFrame:
    """Run a study to its end and return its summary, a row a cell.

    Everything is checked before anything is written, and what is stored already is not done again.

    Raises:
        InputError: something in the study is wrong; nothing was written.
        StoreError, NotANumberError: what was finished before is kept.
    """
    loaders = {cell.model_key: cell.model for cell in study.cells}
    models = {key: load() for key, load in loaders.items()}
    plans: dict[Cell, list[Planned]] = {}
    for key, model in models.items():
        plans |= {
            cell: list(plan(cell, model, study.max_rows)) for cell in study.cells if cell.model_key == key
        }
        if len(models) > 1:
            model.unload()
    study.store.check_writable()
    missing = _missing(study, plans)
    asked = len({text.completion for planned in plans.values() for text in planned})
    if there := asked - sum(map(len, missing.values())):
        console.print(f"{there} of {asked} texts are in {study.store.root} already", highlight=False)
    if any(missing.values()):
        prepare(study.metrics)
    for name, content in study.record.items():
        study.store.write_text(name, content)
    for cell, planned in plans.items():
        study.store.write_cell(cell.id, cell.settings, [_cell_row(text) for text in planned])

    _decode(study, models, missing, console)
    score(study.store, study.metrics, console, {cell.id for cell in study.cells})
    summary = summarise(study.store).set_index("cell")
    return summary.loc[[cell.id for cell in study.cells]].reset_index()


def _missing(study: Study, plans: Plans) -> dict[str, dict[str, Planned]]:
    """Per model, what is not decoded yet, each completion once however many cells count it."""
    done = study.store.completion_ids()
    missing: dict[str, dict[str, Planned]] = {}
    for cell, planned in plans.items():
        unique = missing.setdefault(cell.model_key, {})
        unique.update({text.completion: text for text in planned if text.completion not in done})
    return missing


def _decode(
    study: Study,
    models: Mapping[str, LanguageModel],
    missing: Mapping[str, Mapping[str, Planned]],
    console: Console,
) -> None:
    """Decode what is missing, all cells of a model in one batch."""
    total = sum(text.request.max_new_tokens for unique in missing.values() for text in unique.values())
    if not total:
        return
    costs: list[dict[str, Any]] = []
    with Bar(console, "decoding", total, "tokens") as bar:
        for key, unique in missing.items():
            if unique:
                costs.append(_decode_model(study, models[key], list(unique.values()), bar))
            models[key].unload()
    console.print(f"decoded  {in_words(costs)}", highlight=False)


def _decode_model(study: Study, model: LanguageModel, missing: Sequence[Planned], bar: Bar) -> dict[str, Any]:
    """Decode on one model; what is finished is kept, and what it took."""
    planned = {id(text.request): text for text in missing}
    others: dict[str, LanguageModel] = {}
    for cell in study.cells:
        others.update(cell.negatives.others())
    rows: list[dict[str, Any]] = []  # not written yet
    written = time.monotonic()
    cost = DecodingCost(model=model.name, device=str(model.device), command=study.command)
    decoder = Decoder(model, study.max_rows, others)

    def keep() -> dict[str, Any]:
        if rows:
            study.store.add_completions(rows)
        memory = peak_memory(model.device)
        record = cost.record(steps=decoder.steps, rows=decoder.rows, peak_memory=memory)
        study.store.write_cost(record)
        return record

    try:
        for completion in decoder.decode([text.request for text in missing], on_step=bar.advance):
            cost.add(completion)
            rows.append(_completion_row(planned[id(completion.request)], completion, model, others))
            unused = completion.request.max_new_tokens - completion.steps
            bar.advance(0, saved=unused, note=f"{cost.texts}/{len(missing)} texts")
            if len(rows) >= 256 or time.monotonic() - written > 15:
                keep()
                rows, written = [], time.monotonic()
    except NotANumberError as error:
        prompt = planned[id(error.request)].prompt
        raise NotANumberError(f"{model.name} (prompt {prompt.id})", error.request, error.step) from error
    finally:
        record = keep()  # also where it was interrupted
    return record


def _cell_row(text: Planned) -> dict[str, Any]:
    return {
        "prompt_id": text.prompt.id,
        "prompt": text.prompt.text,
        "prompt_negative": text.prompt.negative,
        "prompt_attribute": text.prompt.attribute,
        "prompt_system": text.prompt.system,
        "prompt_reference": text.prompt.reference,
        "sample": text.request.sample,
        "completion": text.completion,
        "score_id": text.score_id,
    }


def _completion_row(
    planned: Planned, completion: Completion, model: LanguageModel, others: Mapping[str, LanguageModel]
) -> dict[str, Any]:
    request = completion.request
    trace, stop = completion.trace, request.stop_when

    def written(one: Completion) -> str:
        text = model.decode(one.tokens)
        return stop.cut(text) if isinstance(stop, StopStrings) else text

    return {
        "id": planned.completion,
        "model_name": model.name,
        "model_fingerprint": model.fingerprint,
        "positive_ids": request.positive,
        "negative_ids": [branch.ids for branch in request.branches],
        "negative_weights": [branch.weight for branch in request.branches],
        "negative_models": [branch.model for branch in request.branches],
        "text": written(completion),
        "others": [written(other) for other in completion.others],
        "finish_reason": completion.finish_reason,
        "processed": completion.processed,
        "asked": completion.asked,
        "parameters": [(others[name] if name else model).parameters for name, _ in request.contexts],
        "tokens": completion.tokens,
        "stop_token": completion.tokens[-1] in request.stop_ids,
        "pieces": [model.piece(token) for token in completion.tokens],
        **{f"trace_{name}": getattr(trace, name) for name in TRACE},
        **{f"alternatives_{name}": steps for name, steps in trace.likeliest(model.piece).items()},
    }
