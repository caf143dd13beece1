"""Running a study: plan every text, decode what is missing, score it, store it, summarise it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.models import LanguageModel, peak_memory
from cfg_lab.study.cell import Cell, Study
from cfg_lab.study.columns import CELL_COLUMNS, COMPLETION_COLUMNS, Decoded, row
from cfg_lab.study.costs import DecodingCost, in_words
from cfg_lab.study.plan import plan
from cfg_lab.study.planned_text import PlannedText
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.scoring import prepare, score_missing, summarise
from cfg_lab.study.stop_strings import StopStrings

Plans = Mapping[Cell, Sequence[PlannedText]]


def run_study(study: Study, console: Console) -> pd.DataFrame:
    """Run a study to its end and return its summary, one row per cell.

    Everything is checked before anything is written. What is stored already is not done again.

    Raises:
        InputError: something in the study is wrong; nothing was written.
        StoreError, NotANumberError: what was finished before is kept.
    """
    loaders = {cell.model_key: cell.model for cell in study.cells}
    models = {key: load() for key, load in loaders.items()}
    plans: dict[Cell, list[PlannedText]] = {}
    for key, model in models.items():
        plans |= {
            cell: list(plan(cell, model, study.max_rows)) for cell in study.cells if cell.model_key == key
        }
    study.store.check_version()
    study.store.check_writable()
    missing = _missing(study, plans)
    requested = len({text.completion_id for planned in plans.values() for text in planned})
    if existing := requested - sum(map(len, missing.values())):
        console.print(f"{existing} of {requested} texts are in {study.store.root} already", highlight=False)
    if any(missing.values()):
        prepare(study.metrics)
    for name, content in study.record.items():
        study.store.write_text(name, content)
    for cell, planned in plans.items():
        study.store.write_cell(cell.id, cell.settings, [row(CELL_COLUMNS, text) for text in planned])

    _decode(study, models, missing, console)
    score_missing(study.store, study.metrics, console, {cell.id for cell in study.cells})
    summary = summarise(study.store).set_index("cell")
    return summary.loc[[cell.id for cell in study.cells]].reset_index()


def _missing(study: Study, plans: Plans) -> dict[str, dict[str, PlannedText]]:
    """For each model, the texts that are not decoded yet: each once, however many cells contain it."""
    done = study.store.completion_ids()
    missing: dict[str, dict[str, PlannedText]] = {}
    for cell, planned in plans.items():
        unique = missing.setdefault(cell.model_key, {})
        unique.update({text.completion_id: text for text in planned if text.completion_id not in done})
    return missing


def _decode(
    study: Study,
    models: Mapping[str, LanguageModel],
    missing: Mapping[str, Mapping[str, PlannedText]],
    console: Console,
) -> None:
    """Decode what is missing: all cells of a model in one batch, one model after another."""
    total = sum(text.request.max_new_tokens for unique in missing.values() for text in unique.values())
    if not total:
        return
    costs: list[dict[str, Any]] = []
    with ProgressBar(console, "decoding", total, "tokens") as bar:
        for key, unique in missing.items():
            if unique:
                costs.append(_decode_model(study, models[key], list(unique.values()), bar))
            models[key].unload()
    console.print(f"decoded  {in_words(costs)}", highlight=False)


def _decode_model(
    study: Study, model: LanguageModel, missing: Sequence[PlannedText], bar: ProgressBar
) -> dict[str, Any]:
    """Decode the missing texts of one model, store them, and return the record of what it cost."""
    planned = {id(text.request): text for text in missing}
    other_models: dict[str, LanguageModel] = {}
    for cell in study.cells:
        other_models.update(cell.negatives.other_models())
    pending: list[dict[str, Any]] = []  # rows that are not written yet
    last_write = time.monotonic()
    cost = DecodingCost(model=model.name, device=str(model.device), command=study.command)
    decoder = Decoder(model, study.max_rows, other_models)

    def write_pending() -> dict[str, Any]:
        if pending:
            study.store.add_completions(pending)
            pending.clear()
        memory = peak_memory(model.device)
        record = cost.record(steps=decoder.steps, rows=decoder.rows, peak_memory=memory)
        study.store.write_cost(record)
        return record

    try:
        for completion in decoder.decode([text.request for text in missing], on_step=bar.advance):
            cost.add(completion)
            decoded = _decoded(planned[id(completion.request)], completion, model, other_models)
            pending.append(row(COMPLETION_COLUMNS, decoded))
            unused = completion.request.max_new_tokens - completion.steps
            bar.advance(0, saved=unused, note=f"{cost.texts}/{len(missing)} texts")
            if len(pending) >= 256 or time.monotonic() - last_write > 15:
                write_pending()
                last_write = time.monotonic()
    except NotANumberError as error:
        prompt = planned[id(error.request)].prompt
        raise NotANumberError(f"{model.name} (prompt {prompt.id})", error.request, error.step) from error
    finally:
        record = write_pending()  # also after an interruption
    return record


def _decoded(
    planned: PlannedText,
    completion: Completion,
    model: LanguageModel,
    other_models: Mapping[str, LanguageModel],
) -> Decoded:
    stop = completion.request.stop_when

    def text_of(completion: Completion) -> str:
        text = model.decode(completion.tokens)
        return stop.cut(text) if isinstance(stop, StopStrings) else text

    return Decoded(
        planned=planned,
        completion=completion,
        models=tuple(other_models[name] if name else model for name, _ in completion.request.contexts),
        text=text_of(completion),
        other_texts=tuple(map(text_of, completion.others)),
    )
