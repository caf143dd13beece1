"""Running a study: plan every text of every cell, decode what is missing, score it, keep it, sum it up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from cfg_lab.analysis import summary
from cfg_lab.decoding import Decoder, NotANumberError
from cfg_lab.metrics import Metric, scorer_key
from cfg_lab.models import LanguageModel
from cfg_lab.planning import Cell, Planned, StopStrings, Study, plan
from cfg_lab.progress import Bar
from cfg_lab.records import Completion, Text
from cfg_lab.store import CELL, Store, join
from cfg_lab.tracking import CellResult

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
        for metric in study.metrics:
            metric.score([])  # what it needs and cannot get is known now, not after hours of decoding
    for name, content in study.record.items():
        study.store.write_text(name, content)
    for cell, planned in plans.items():
        study.store.write_cell(cell.id, cell.settings, [_cell_row(text) for text in planned])

    _decode(study, models, missing, console)
    _score(study, plans, console)
    table = _summarise(study.store).set_index("cell").loc[[cell.id for cell in study.cells]].reset_index()
    _track(study, table, console)
    return table


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
    with Bar(console, "decoding", total, "tokens") as bar:
        for key, unique in missing.items():
            if unique:
                _decode_model(study, models[key], list(unique.values()), bar)
            models[key].unload()


def _decode_model(study: Study, model: LanguageModel, missing: Sequence[Planned], bar: Bar) -> None:
    planned = {id(text.request): text for text in missing}
    finished = 0
    rows: list[dict[str, Any]] = []  # not written yet
    written = time.monotonic()
    completions = Decoder(model, study.max_rows).decode(
        [text.request for text in missing], on_step=bar.advance
    )
    try:
        for completion in completions:
            finished += 1
            rows.append(_completion_row(planned[id(completion.request)], completion, model))
            unused = completion.request.max_new_tokens - len(completion.tokens)
            bar.advance(0, saved=unused, note=f"{finished}/{len(missing)} texts")
            if len(rows) >= 256 or time.monotonic() - written > 15:
                study.store.add_completions(rows)
                rows, written = [], time.monotonic()
    except NotANumberError as error:
        prompt = planned[id(error.request)].prompt
        raise NotANumberError(f"{model.name} (prompt {prompt.id})", error.request, error.step) from error
    finally:
        if rows:  # also where it was interrupted: what is finished is kept
            study.store.add_completions(rows)


def _score(study: Study, plans: Plans, console: Console) -> None:
    """Score the texts that a metric has not scored yet."""
    scored = study.store.scored()
    unique = {text.score_id: text for planned in plans.values() for text in planned}
    missing: dict[Metric, list[str]] = {}
    for metric in study.metrics:
        key = scorer_key(metric)
        missing[metric] = [score_id for score_id in unique if (score_id, key) not in scored]
    total = sum(map(len, missing.values()))
    if not total:
        return
    stored = study.store.completions().set_index("id")
    with Bar(console, "scoring ", total, "texts") as bar:
        for metric, score_ids in missing.items():
            for begin in range(0, len(score_ids), 256):
                part = score_ids[begin : begin + 256]
                columns = metric.score([_text(unique[score_id], stored) for score_id in part])
                study.store.add_scores(
                    [
                        {"text": score_id, "scorer": scorer_key(metric), "column": column, "value": value}
                        for column, values in columns.items()
                        for score_id, value in zip(part, values, strict=True)
                    ]
                )
                bar.advance(len(part), note=type(metric).__name__)


def _summarise(store: Store) -> pd.DataFrame:
    """Mean, interval and n of every metric in every cell of the store; written there too."""
    cells = store.cells()
    texts = join(store, cells)
    settings = [name for name in cells.columns if name not in {"cell", *CELL.names}]
    metrics = [name for name in store.scores().columns if name in texts]
    found = summary(texts, metrics, settings)
    store.write_summary(found)
    return found


def _track(study: Study, table: pd.DataFrame, console: Console) -> None:
    """Mirror cells that changed; a tracker that fails is let go of, the results are on disk anyway."""
    texts = join(study.store, study.store.cells(cell.id for cell in study.cells))
    metrics = [name for name in study.store.scores().columns if name in table]
    shown = ["prompt_id", "prompt", "sample", "text", "finish_reason", *metrics]
    rows: Any = table.set_index("cell")
    try:
        for cell in study.cells:
            result = CellResult(
                study=study.name,
                cell=cell.id,
                label=" ".join(f"{key}={value}" for key, value in cell.label.items()) or study.name,
                settings=cell.settings,
                means={
                    name: rows.loc[cell.id, name]
                    for metric in metrics
                    for name in (metric, f"{metric}_low", f"{metric}_high", f"{metric}_n")
                },
                texts=texts.loc[texts["cell"] == cell.id, shown],
                folder=study.store.root,
            )
            logged = f"{study.tracker!r} {result.means!r}"
            if study.store.read_text(f"tracked/{cell.id}") != logged:
                study.tracker.log(result)
                study.store.write_text(f"tracked/{cell.id}", logged)
    except Exception as error:
        console.print(
            f"tracking failed ({type(error).__name__}: {error}); the results are on disk all the same",
            style="yellow",
            markup=False,
        )


def _cell_row(text: Planned) -> dict[str, Any]:
    return {
        "prompt_id": text.prompt.id,
        "prompt": text.prompt.text,
        "sample": text.request.sample,
        "completion": text.completion,
        "score_id": text.score_id,
    }


def _completion_row(planned: Planned, completion: Completion, model: LanguageModel) -> dict[str, Any]:
    request = completion.request
    text, stop = model.decode(completion.tokens), request.stop_when
    return {
        "id": planned.completion,
        "model_name": model.name,
        "model_fingerprint": model.fingerprint,
        "positive_ids": request.positive,
        "negative_ids": [branch.ids for branch in request.branches],
        "negative_weights": [branch.weight for branch in request.branches],
        "text": stop.cut(text) if isinstance(stop, StopStrings) else text,
        "finish_reason": completion.finish_reason,
        "tokens": completion.tokens,
        **{f"trace_{name}": values for name, values in vars(completion.trace).items()},
    }


def _text(planned: Planned, stored: pd.DataFrame) -> Text:
    row: Any = stored.loc[planned.completion]
    tokens = tuple(map(int, row["tokens"]))
    stopped = bool(tokens) and tokens[-1] in planned.request.stop_ids
    return Text(
        id=planned.completion,
        prompt=planned.prompt,
        text=row["text"],
        tokens=tokens,
        log_probs=tuple(map(float, row["trace_positive"]))[: len(tokens) - stopped],
        finish_reason=row["finish_reason"],
    )
