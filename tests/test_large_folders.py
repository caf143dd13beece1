"""A part of a results folder is read as it is in the whole; only what is asked for is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import cfg_lab
from cfg_lab import analysis
from cfg_lab.errors import InputError, StoreError
from cfg_lab.study.columns import COMPLETION_SCHEMA, TEXT_COLUMNS, text_of
from cfg_lab.study.console import open_console
from cfg_lab.study.joined_results import ALWAYS
from cfg_lab.study.scoring import score_rows
from cfg_lab.study.store import Store
from tests.cli import on, sweep


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    metrics = "metrics=[perplexity,length,self_bleu]"
    sweep(*on(folder, tiny_folder), "guidance.scale=1,2", "negatives=empty,own", "top=2", metrics)
    return folder / "results" / "study"


@pytest.fixture
def results(swept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(swept, tmp_path / "study", copy_function=shutil.copy2))


@pytest.mark.parametrize(
    "columns",
    [
        [],
        ["text"],
        ["self_bleu", "perplexity", "text"],
        ["alternatives_guided", "trace_scale", "prompt_negative"],
    ],
)
def test_chosen_columns_are_those_of_all(swept: Path, columns: list[str]) -> None:
    everything, chosen = cfg_lab.load_results(swept), cfg_lab.load_results(swept, columns)
    expected = {"cell", *ALWAYS, *analysis.settings_of(everything), *columns}
    assert list(chosen) == [name for name in everything if name in expected]
    pd.testing.assert_frame_equal(pd.DataFrame(chosen), pd.DataFrame(everything[list(chosen)]))


def test_tables_are_the_same_without_the_other_columns(swept: Path) -> None:
    everything, chosen = cfg_lab.load_results(swept), cfg_lab.load_results(swept, ["perplexity"])
    for table in (analysis.summary, analysis.comparisons):
        pd.testing.assert_frame_equal(table(everything, ["perplexity"]), table(chosen, ["perplexity"]))


def test_every_column_can_be_asked_for_by_name(swept: Path) -> None:
    everything = cfg_lab.load_results(swept)
    for name in map(str, everything):
        assert list(cfg_lab.load_results(swept, [name])[name].map(repr)) == list(everything[name].map(repr))


def test_chosen_cells_are_those_of_all(swept: Path) -> None:
    everything = cfg_lab.load_results(swept)
    ids = everything["cell"].unique()
    chosen = cfg_lab.load_results(swept, cells=ids[[0, 2]].tolist())
    expected = everything[everything["cell"].isin(ids[[0, 2]])].reset_index(drop=True)
    absent = [name for name in analysis.settings_of(everything) if name not in chosen]
    assert expected[absent].isna().all(axis=None)  # settings that none of the two cells has
    expected = pd.DataFrame(expected.drop(columns=absent))
    pd.testing.assert_frame_equal(pd.DataFrame(chosen), expected, check_dtype=False)


UNKNOWN = {
    "perplexty": r"columns: there is no column 'perplexty' in .*study' \(did you mean perplexity\?\)",
    "guidance.scal": r"no column 'guidance\.scal' in .*did you mean guidance\.scale",
    "score_id": r"no column 'score_id' in ",
    "zzz": r"no column 'zzz' in .*; it has prompt_id, prompt, .*text, .*guidance\.scale, .*length",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_column_is_named_with_what_resembles_it(swept: Path, name: str) -> None:
    with pytest.raises(InputError, match=UNKNOWN[name]):
        cfg_lab.load_results(swept, ["text", name])


def test_an_unknown_cell_is_named(swept: Path) -> None:
    cell = cfg_lab.load_results(swept, [])["cell"][0]
    with pytest.raises(InputError, match=rf"there is no cell '{cell[:-1]}x' in .*did you mean {cell}"):
        cfg_lab.load_results(swept, cells=[f"{cell[:-1]}x"])


def test_only_decoded_texts_are_loaded(results: Path) -> None:
    everything = cfg_lab.load_results(results)
    (file,) = (results / "completions").iterdir()
    table = pq.read_table(file)
    pq.write_table(table.take(np.arange(0, len(table), 2)), file)
    decoded = set(table["id"].to_pylist()[::2])
    columns = ["text", "length", "guidance.scale"]
    expected = everything[everything["completion"].isin(decoded)].reset_index(drop=True)
    chosen = cfg_lab.load_results(results, columns)
    pd.testing.assert_frame_equal(pd.DataFrame(chosen), pd.DataFrame(expected[list(chosen)]))


def test_completions_of_ids(swept: Path) -> None:
    store = Store(swept)
    everything = store.completions()
    ids = everything["id"].tolist()[1:4]
    chosen = store.completions(["text", "trace_scale"], ids)
    expected = everything.iloc[1:4][["text", "trace_scale"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(chosen, expected)
    assert store.completions(ids=["nothing"]).empty


def test_the_first_of_equal_ids_is_read(tmp_path: Path) -> None:
    """Two sweeps that decode one text at once write two rows with its id."""
    row: dict[str, Any] = dict.fromkeys(COMPLETION_SCHEMA.names)
    store = Store(tmp_path)
    store.add_completions([row | {"id": "a", "text": "first"}, row | {"id": "b", "text": "b"}])
    store.add_completions([row | {"id": "c", "text": "c"}, row | {"id": "a", "text": "second"}])
    assert store.completions(["text"])["text"].tolist() == ["first", "b", "c"]
    assert store.completions(["text"], ["a", "c"])["text"].tolist() == ["first", "c"]


def test_text_of_reads_no_other_columns(swept: Path) -> None:
    cell = Store(swept).cells().iloc[0].to_dict()
    for completion in Store(swept).completions(TEXT_COLUMNS).to_dict("records"):
        assert text_of(cell, completion).text == completion["text"]


def test_scoring_some_rows_reads_no_file_of_other_texts(results: Path) -> None:
    """A file with other texts is damaged where its texts are, and nobody notices."""
    (file,) = (results / "completions").iterdir()
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 3), file)
    other = file.with_name("other.parquet")
    pq.write_table(table.slice(3), other, compression="none")
    column = pq.ParquetFile(other).metadata.row_group(0).column(table.column_names.index("text"))
    content = bytearray(other.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    other.write_bytes(content)
    with pytest.raises(StoreError, match=r"other\.parquet is damaged"):
        cfg_lab.load_results(results, ["text"])
    cells = Store(results).cells()
    rows = cells[cells["completion"].isin(table["id"].to_pylist()[:3])].drop_duplicates("completion")
    assert score_rows(Store(results), [cfg_lab.metrics.Readability()], rows, open_console()) == 3
    assert score_rows(Store(results), [cfg_lab.metrics.Readability()], rows, open_console()) == 0


def test_the_dataset_has_all_texts_and_reads_them_by_part(swept: Path) -> None:
    dataset = cfg_lab.open_dataset(swept)
    assert set(dataset.schema.names) == set(COMPLETION_SCHEMA.names)
    assert dataset.to_table(columns=["id"])["id"].to_pylist() == Store(swept).completions()["id"].tolist()
    ends = [name for batch in dataset.to_batches(columns=["finish_reason"]) for name in batch[0].to_pylist()]
    assert len(ends) == dataset.count_rows()


def test_a_folder_without_texts_has_no_dataset(tmp_path: Path, results: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        cfg_lab.open_dataset(tmp_path / "nothing")
    shutil.rmtree(results / "completions")
    with pytest.raises(InputError, match="is decoded yet"):
        cfg_lab.open_dataset(results)


def test_a_link_to_a_file_that_is_gone_is_named(results: Path) -> None:
    (results / "completions" / "gone.parquet").symlink_to(results / "nowhere.parquet")
    with pytest.raises(StoreError, match="gone"):
        Store(results).completion_ids()
