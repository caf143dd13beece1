"""Write the page of a results folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cfg_lab.errors import InputError
from cfg_lab.metrics import packaged_cards
from cfg_lab.report.document import TOKEN_BUDGET, document
from cfg_lab.report.record import read_record
from cfg_lab.report.shown_texts import MOST_TRACED_ROWS, read_shown_texts
from cfg_lab.report.study_analysis import StudyAnalysis, analyse_study
from cfg_lab.search.trials import results_of
from cfg_lab.study.results import load_results
from cfg_lab.study.store import Store


def report(folder: str | Path, output: str | Path | None = None, *, tokens: int = TOKEN_BUDGET) -> Path:
    """Write one HTML file that holds the results of a sweep, and return its path.

    Args:
        folder: the results folder.
        output: the file to write; by default report.html in the results folder.
        tokens: largest size, in bytes, of the data with which the page shows the tokens of texts. Tokens
            beyond this size are left out, and the page says so.

    Raises:
        InputError: the folder holds no results, or the file cannot be written.
        StoreError: a results file is damaged.
    """
    path = Path(output or Path(folder) / "report.html")
    return write_page(read_study(folder), Store(folder), path, tokens)


def read_study(folder: str | Path) -> StudyAnalysis:
    """Read the results of a sweep, and compare its cells.

    Args:
        folder: the results folder.

    Raises:
        InputError: the folder holds no results.
        StoreError: a results file is damaged.
    """
    store = Store(folder)
    columns = ["prompt_negative", "model_fingerprint", *store.score_columns()]
    results = load_results(folder, columns=columns)
    results["positive_ids"] = _contexts_as_text(results["positive_ids"])
    return analyse_study(results, read_record(store), results_of(store))


def _contexts_as_text(positive_ids: pd.Series[Any]) -> pd.Series[Any]:
    """A short text for each list of token ids; equal lists have equal texts.

    The analysis asks many times which texts have the same context. It compares texts faster than lists.
    """
    if positive_ids.isna().any():
        return positive_ids
    numbers, _ = pd.factorize(pd.Series([np.asarray(ids).tobytes() for ids in positive_ids], dtype=object))
    texts = np.array([str(number) for number in range(int(numbers.max()) + 1)], object)
    return pd.Series(texts[numbers], positive_ids.index, dtype=object)


def write_page(study: StudyAnalysis, store: Store, path: Path, tokens: int = TOKEN_BUDGET) -> Path:
    """Write the page of a study to `path`, and return the path. `tokens` is as in `report`.

    Args:
        study: the study, from `read_study`.
        store: its results folder, which has the texts.

    Raises:
        InputError: the file cannot be written.
        StoreError: a results file is damaged.
    """
    cards = packaged_cards(list(map(str, study.results.columns)))
    shown = read_shown_texts(store, study.results, round(MOST_TRACED_ROWS * tokens / TOKEN_BUDGET))
    page = document(study, cards, shown, token_budget=tokens)
    draft = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(page, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"--output: {str(path)!r} cannot be written ({error.strerror})") from error
    return path
