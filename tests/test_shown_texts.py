"""The page of a very large study shows the same few texts of every cell, and statistics over all texts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import cfg_lab
from cfg_lab.report import document, shown_texts
from cfg_lab.report.document import TOKEN_BUDGET
from cfg_lab.report.record import read_record
from cfg_lab.report.shown_texts import MOST_TRACED_ROWS, chosen_rows, read_shown_texts
from cfg_lab.report.study_analysis import analyse_study
from cfg_lab.report.write import report
from cfg_lab.study.store import Store
from tests.cli import on, sweep
from tests.fabricated import results
from tests.test_report import data_of, packs_of

STATISTICS = ("cells", "metrics", "fronts", "distinct_prompts", "axes")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    sweep(*on(folder, tiny_folder), "guidance.scale=1,2", "negatives=empty,own", "top=2")
    return folder / "results" / "study"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of more than 10 texts is very large, and about 8 of its texts are shown."""
    monkeypatch.setattr(shown_texts, "MOST_TEXTS", 10)
    monkeypatch.setattr(shown_texts, "SAMPLE_TEXTS", 8)


def test_up_to_a_size_all_texts_are_shown() -> None:
    assert chosen_rows(results(prompts=5)).all()


def test_the_sample_has_the_same_prompts_and_samples_in_every_cell(few: None) -> None:
    frame = results({1: 0, 2: 0.1, 3: 0.2}, prompts=30, samples=3, negatives=("empty", "own"))
    chosen = frame[chosen_rows(frame)]
    pairs = {frozenset(zip(of["prompt_id"], of["sample"], strict=True)) for _, of in chosen.groupby("cell")}
    assert set(chosen["cell"]) == set(frame["cell"])
    assert len(pairs) == 1
    assert 0 < len(chosen) < len(frame) / 10


@pytest.mark.parametrize("texts", [6, 60, 240, 600, 1080])
def test_the_sample_is_evenly_spaced(texts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the first samples of evenly spaced prompts, then the first samples of all prompts."""
    monkeypatch.setattr(shown_texts, "MOST_TEXTS", 10)
    monkeypatch.setattr(shown_texts, "SAMPLE_TEXTS", texts)
    frame = results({1: 0, 2: 0.1, 3: 0.2}, prompts=60, samples=3, negatives=("empty", "own"))
    chosen = frame[chosen_rows(frame)]
    assert len(chosen) == texts
    per_sample = chosen.groupby("sample")["prompt_id"].nunique()
    assert (per_sample.iloc[:-1] == 60).all()
    if len(per_sample) == 1:
        gaps = np.diff(sorted(int(name[1:]) for name in chosen["prompt_id"].unique()))
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_every_part_of_a_study_is_represented(few: None) -> None:
    """Two tasks of very different sizes: each cell has a text on the page."""
    large, small = results(prompts=100), results(prompts=2)
    small["cell"], small["prompt_id"] = "small-" + small["cell"], "small-" + small["prompt_id"]
    frame = pd.concat([large, small], ignore_index=True)
    assert set(frame[chosen_rows(frame)]["cell"]) == set(frame["cell"])


def test_the_page_of_a_sample_has_the_statistics_of_all_texts(
    swept: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = data_of(report(swept, tmp_path / "whole.html").read_text())
    assert whole["texts_shown"] == ""
    request.getfixturevalue("few")
    page = report(swept, tmp_path / "few.html").read_text()
    some = data_of(page)
    for name in STATISTICS:
        assert whole[name] == some[name], name
    frame = cfg_lab.load_results(swept)
    sentence = (
        f"This page shows 8 of {len(frame)} texts: 2 texts of each cell, of the same prompts. All statistics "
        f"are over all texts. python -m cfg_lab.export {swept} writes all texts."
    )
    assert some["texts_shown"] == sentence
    assert sentence in re.sub(r"\s+", " ", page[: page.index("<main>")])
    cells = [some["cells"]["id"][cell] for cell in some["rows"]["cell"]]
    texts = [some["completions"]["text"][number] for number in some["rows"]["completion"]]
    prompts = [some["prompts"]["id"][prompt] for prompt in some["rows"]["prompt"]]
    index = frame.set_index(["cell", "prompt_id", "sample"])["text"]
    expected = [index[key] for key in zip(cells, prompts, some["rows"]["sample"], strict=True)]
    assert texts == expected
    assert len(texts) == 8
    assert set(cells) == set(frame["cell"])
    packed = [len(pack["texts"]) for pack in packs_of(page)]
    assert sum(packed) == sum(tokens > 0 for tokens in some["completions"]["tokens"])


def test_the_page_from_disk_is_that_of_all_columns(swept: Path, tmp_path: Path) -> None:
    """Only some columns are read from disk, and traces only for shown texts. That changes nothing."""
    frame = cfg_lab.load_results(swept)
    study = analyse_study(pd.DataFrame(frame), read_record(Store(swept)))
    assert report(swept, tmp_path / "page.html").read_text(encoding="utf-8") == document(study, {})


def test_traces_are_read_from_files_with_a_limited_number_of_rows(swept: Path, tmp_path: Path) -> None:
    """The files of the first ids are opened first. Texts without traces are counted in the note."""
    root = tmp_path / "study"
    shutil.copytree(swept, root)
    (path,) = (root / "completions").glob("*.parquet")
    table = pq.read_table(path)
    path.unlink()
    for number in range(len(table)):  # each text in a file of its own
        pq.write_table(table.slice(number, 1), root / "completions" / f"{number:02}.parquet")
    frame = cfg_lab.load_results(root, columns=[])
    ids = list(reversed(frame["completion"].unique()))
    shown = read_shown_texts(Store(root), frame, most_traced_rows=3)
    assert set(shown.traces(ids).index) == set(ids[:3])
    page = report(root, tmp_path / "page.html", tokens=round(5 * TOKEN_BUDGET / MOST_TRACED_ROWS)).read_text()
    data, written = data_of(page), sum(len(pack["texts"]) for pack in packs_of(page))
    with_tokens = sum(tokens > 0 for tokens in data["completions"]["tokens"])
    assert f"{with_tokens - written} of {with_tokens} texts are without token view" in data["tokens"]["note"]
