"""Running a study: plan every text, decode the missing ones, score them, and summarise the cells."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console

from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.models import LanguageModel, peak_memory
from cfg_lab.models.architectures import known_types
from cfg_lab.study.cell import Cell, StoredStudy, Study
from cfg_lab.study.columns import CELL_COLUMNS, COMPLETION_COLUMNS, Decoded, row
from cfg_lab.study.costs import DecodingCost, in_words
from cfg_lab.study.plan import plan
from cfg_lab.study.planned_text import PlannedText
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.prompts_in_words import duplicates_in_words
from cfg_lab.study.scoring import prepare_metrics, score_missing, summarise
from cfg_lab.study.stop_strings import StopStrings

_ROWS_PER_FILE = 256
"""Largest number of decoded texts in one file."""

_SECONDS_BETWEEN_WRITES = 15
"""Longest time between two writes of decoded texts."""

Plans = Mapping[Cell, Sequence[PlannedText]]


@dataclass(frozen=True, kw_only=True)
class PreparedStudy:
    """A study that has been checked and planned, and whose cells are in the results folder.

    Attributes:
        models: the models by their keys. Most are not loaded yet.
        plans: for each cell, its texts.
        missing: the texts that are not decoded yet: model key -> completion id -> planned text. A text that
            belongs to several cells appears once.
    """

    models: Mapping[str, LanguageModel]
    plans: Plans
    missing: Mapping[str, Mapping[str, PlannedText]]


def run_study(study: Study, console: Console) -> None:
    """Decode and score every text of a study that is not in its results folder yet.

    Everything is checked before anything is written.

    Raises:
        InputError: something in the study is wrong; nothing was written.
        StoreError: a file cannot be read or written; what was finished before is kept.
        NotANumberError: the model's logits are not numbers; what was finished before is kept.
    """
    prepared = prepare_study(study, console)
    _decode(study, prepared.models, prepared.missing, console)
    score_missing(study.store, study.metrics, console, {cell.id for cell in study.cells})


def prepare_study(study: Study, console: Console) -> PreparedStudy:
    """Check a study, plan its texts, and write its cells to the results folder. Nothing is decoded.

    Raises:
        InputError: something in the study is wrong; nothing was written.
        StoreError: a file cannot be read or written.
    """
    study.store.check_version()
    loaders = {cell.model_key: cell.model for cell in study.cells}
    models = {key: load() for key, load in loaders.items()}
    for model in models.values():
        model.warn_about_generation_settings()
    plans: dict[Cell, list[PlannedText]] = {}
    for key, model in models.items():
        plans |= {
            cell: list(plan(cell, model, study.max_rows)) for cell in study.cells if cell.model_key == key
        }
    for sentence in duplicates_in_words(plans.values()):
        console.print(sentence, highlight=False, soft_wrap=True)
    missing = _missing(study, plans)
    check_models(study, models, missing)
    study.store.check_writable()
    text_count = len({text.completion_id for texts in plans.values() for text in texts})
    if decoded_count := text_count - sum(map(len, missing.values())):
        console.print(
            f"{decoded_count} of {text_count} texts are in {study.store.root} already", highlight=False
        )
    if any(missing.values()):
        prepare_metrics(study.metrics)
    write_provenance(study)
    for cell, texts in plans.items():
        study.store.write_cell(cell.id, cell.settings, [row(CELL_COLUMNS, text) for text in texts])
    return PreparedStudy(models=models, plans=plans, missing=missing)


def write_provenance(study: StoredStudy) -> None:
    """Write config.yaml and environment.json to the results folder."""
    for name, content in study.provenance.items():
        study.store.write_text(name, content)


def summary_of(study: StoredStudy) -> pd.DataFrame:
    """Write summary.parquet for all cells of the results folder, and return the rows of the study's cells."""
    summary = summarise(study.store).set_index("cell")
    return summary.loc[[cell.id for cell in study.cells]].reset_index()


def _missing(study: Study, plans: Plans) -> dict[str, dict[str, PlannedText]]:
    """The texts that are not decoded yet, see `PreparedStudy.missing`."""
    decoded_ids = study.store.completion_ids()
    missing: dict[str, dict[str, PlannedText]] = {}
    for cell, texts in plans.items():
        missing.setdefault(cell.model_key, {}).update(
            {text.completion_id: text for text in texts if text.completion_id not in decoded_ids}
        )
    return missing


def check_models(
    study: StoredStudy, models: Mapping[str, LanguageModel], missing: Mapping[str, Collection[Any]]
) -> None:
    """Load the models of missing texts whose type is not known to run. They may be refused when loaded.

    Args:
        study: the study.
        models: the models by their keys.
        missing: model key -> what is to be done with the model; it is not needed if that is empty.
    """
    needed = {id(models[key]): models[key] for key, texts in missing.items() if texts}
    for cell in study.cells:
        if missing[cell.model_key]:
            needed |= {id(model): model for model in cell.negatives.other_models().values()}
    for model in needed.values():
        if model.config.model_type in known_types():
            continue
        model.module  # noqa: B018, loads and checks it
        if len(needed) > 1:  # they may not fit into memory together
            model.unload()


def _decode(
    study: Study,
    models: Mapping[str, LanguageModel],
    missing: Mapping[str, Mapping[str, PlannedText]],
    console: Console,
) -> None:
    """Decode the missing texts: one model after another, all cells of a model in one batch."""
    total = sum(text.request.max_new_tokens for texts in missing.values() for text in texts.values())
    if not total:
        return
    costs: list[dict[str, Any]] = []
    with ProgressBar(console, "decoding", total, "tokens") as bar:
        for key, texts in missing.items():
            if texts:
                costs.append(decode_model(study, models[key], list(texts.values()), bar))
            models[key].unload()
    console.print(f"decoded  {in_words(costs)}", highlight=False)


def decode_model(
    study: Study, model: LanguageModel, missing: Sequence[PlannedText], bar: ProgressBar
) -> dict[str, Any]:
    """Decode texts of one model, and store them. What is finished is also stored after an interruption.

    Args:
        study: the study that the texts belong to.
        model: the model.
        missing: the texts to decode, each once.
        bar: counts the new tokens.

    Returns:
        The values of the `DecodingCost`.
    """
    planned = {id(text.request): text for text in missing}
    other_models: dict[str, LanguageModel] = {}
    for cell in study.cells:
        other_models.update(cell.negatives.other_models())
    unwritten: list[dict[str, Any]] = []
    last_write_time = time.monotonic()
    cost = DecodingCost(model=model.name, device=str(model.device), command=study.command)
    decoder = Decoder(model, study.max_rows, other_models, cuda_graphs=study.cuda_graphs)

    def write() -> dict[str, Any]:
        if unwritten:
            study.store.add_completions(unwritten)
            unwritten.clear()
        memory = peak_memory(model.device)
        cost_values = cost.values(steps=decoder.steps, rows=decoder.rows, peak_memory=memory)
        study.store.write_cost(cost_values)
        return cost_values

    try:
        for completion in decoder.decode([text.request for text in missing], on_step=bar.advance):
            cost.add(completion)
            decoded = _decoded(planned[id(completion.request)], completion, model, other_models)
            unwritten.append(row(COMPLETION_COLUMNS, decoded))
            unused = completion.request.max_new_tokens - completion.steps
            bar.advance(0, saved=unused, note=f"{cost.texts}/{len(missing)} texts")
            waited = time.monotonic() - last_write_time
            if len(unwritten) >= _ROWS_PER_FILE or waited > _SECONDS_BETWEEN_WRITES:
                write()
                last_write_time = time.monotonic()
    except NotANumberError as error:
        prompt = planned[id(error.request)].prompt
        raise NotANumberError(f"{model.name} (prompt {prompt.id})", error.request, error.step) from error
    finally:
        cost_values = write()  # also after an interruption
    return cost_values


def _decoded(
    planned: PlannedText,
    completion: Completion,
    model: LanguageModel,
    other_models: Mapping[str, LanguageModel],
) -> Decoded:
    """Collect everything that the row of a completion needs.

    Args:
        planned: the plan of the text.
        completion: the decoder's result for the text.
        model: the model that generated the text.
        other_models: models of the negatives, as name -> model.
    """
    stop = completion.request.stop_when

    def cut(completion: Completion) -> tuple[Completion, str]:
        if isinstance(stop, StopStrings):
            return stop.cut(completion)
        return completion, model.decode(completion.text_tokens)

    cut_completion, text = cut(completion)
    return Decoded(
        planned=planned,
        completion=cut_completion,
        models=tuple(other_models[name] if name else model for name, _ in completion.request.contexts),
        text=text,
        other_texts=tuple(text for _, text in map(cut, completion.others)),
    )
