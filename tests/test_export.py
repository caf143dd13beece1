"""An export has every row and value of the results, and is complete or absent."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import cfg_lab
from cfg_lab.errors import InputError, StoreError
from cfg_lab.export import export, rows
from cfg_lab.export.columns import setting_array
from cfg_lab.export.meanings import meaning_of
from cfg_lab.models.packaged import PACKAGED
from cfg_lab.options import CONFIG
from cfg_lab.study.columns import CELL_COLUMNS, COMPLETION_COLUMNS
from tests.cli import environment, on, sweep

STRANGE = [
    "",
    "NA",
    "nan",
    'a "quoted" word, a comma',
    "two\nlines",
    "carriage\rreturn\r\n",
    "\ttab ",
    "\u202e\u05d0 \U0001f600 \u2028",
    "'=1+1",
]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The results folder of a real sweep, with texts that several cells share and a metric of whole cells."""
    folder = tmp_path_factory.mktemp("swept")
    grid = ["guidance.scale=1,2,3", "negatives=empty,own", "top=2", "metrics=[perplexity,length,self_bleu]"]
    sweep(*on(folder, tiny_folder), *grid)
    return folder / "results" / "study"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "an export"


def load(folder: Path) -> Any:
    dataset = datasets.load_from_disk(str(folder))
    assert isinstance(dataset, datasets.Dataset)
    return dataset


def plain(value: Any) -> Any:
    """A value without types of numpy; None for NaN and for a missing value."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in cast("dict[str, Any]", value).items()}
    return None if value is None or value is pd.NA or (isinstance(value, float) and value != value) else value


def values(column: Any) -> list[Any]:
    return [plain(value) for value in list(column)]


def assert_equal(dataset: Any, results: pd.DataFrame) -> None:
    """Check that a dataset has the columns, rows and values of a frame, in the same order."""
    assert dataset.column_names == list(results.columns)
    for name in results.columns:
        assert values(dataset[name]) == values(results[name].tolist()), name


def with_texts(root: Path, texts: Sequence[str]) -> list[str]:
    """Replace the texts of a results folder, and return the new ones in the order of the files."""
    replaced: list[str] = []
    for path in sorted((root / "completions").glob("*.parquet")):
        table = pq.read_table(path)
        new = [texts[(len(replaced) + number) % len(texts)] for number in range(len(table))]
        column = table.column_names.index("text")
        pq.write_table(table.set_column(column, "text", pa.array(new)), path)
        replaced += new
    return replaced


# Rows and values


def test_all_rows_and_values_are_those_of_the_results(swept: Path, output: Path) -> None:
    results = cfg_lab.load_results(swept)
    assert results["completion"].duplicated().any(), "no cells share a text"
    assert results["self_bleu"].notna().any(), "there are no scores of whole cells"
    assert export(swept, output, columns=["all"]) == output
    assert_equal(load(output), results)


def test_small_windows_change_nothing(swept: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are sorted on disk. However few of them are in memory, the export is the same."""
    whole = load(export(swept, output, columns=["all"])).to_pandas()
    for path in (swept / "completions").glob("*.parquet"):
        assert pq.read_metadata(path).num_rows > 5
    monkeypatch.setattr(rows, "WINDOW_BYTES", 5_000)
    monkeypatch.setattr(rows, "_ROWS_PER_READ", 1)
    some = load(export(swept, output.with_name("b"), columns=["all"]))
    pd.testing.assert_frame_equal(some.to_pandas(), whole)


def test_without_columns_all_but_those_of_tokens_are_written(swept: Path, output: Path) -> None:
    results = cfg_lab.load_results(swept)
    of_tokens = [name for name in map(str, results) if re.match("pieces|trace_|alternatives_", name)]
    assert_equal(load(export(swept, output)), results.drop(columns=of_tokens))
    card = (output / "README.md").read_text()
    assert all(f"`{name}`" in card for name in of_tokens)
    assert "`--columns all`" in card


def test_columns_and_cells_are_chosen(swept: Path, output: Path) -> None:
    results = cfg_lab.load_results(swept)
    cells, columns = list(results["cell"].unique()[[1, 4]]), ["perplexity", "text", "guidance.scale"]
    exported = load(export(swept, output, columns=columns, cells=cells))
    assert_equal(exported, results.loc[results["cell"].isin(cells), columns])
    only_scores = load(export(swept, output, columns=["perplexity"]))
    assert_equal(only_scores, results[["perplexity"]])


def test_a_partly_decoded_study_has_its_decoded_texts(swept: Path, output: Path, tmp_path: Path) -> None:
    root = copy(swept, tmp_path)
    for path in (root / "completions").glob("*.parquet"):
        pq.write_table(pq.read_table(path).slice(3, 11), path)
    results = cfg_lab.load_results(root)
    assert 0 < len(results) < len(cfg_lab.load_results(swept))
    assert_equal(load(export(root, output, columns=["all"])), results)


def test_the_card_names_the_files_that_the_hub_reads(swept: Path, output: Path, tmp_path: Path) -> None:
    export(swept, output, columns=["prompt_id", "text"])
    (config,) = yaml.safe_load(card(output).split("---")[1])["configs"]
    files = str(output / config["data_files"])
    loaded = datasets.load_dataset(
        "arrow", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert_equal(loaded, cfg_lab.load_results(swept)[["prompt_id", "text"]])


def copy(root: Path, folder: Path) -> Path:
    target = folder / "copy"
    for path in sorted(root.rglob("*"), key=lambda path: path.stat().st_mtime_ns):
        if path.is_file():
            new = target / path.relative_to(root)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(path.read_bytes())
            os.utime(
                new, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns)
            )  # the order of files is their age
    return target


@pytest.mark.parametrize(
    ("settings", "type_", "expected"),
    [
        ([1, 2, None], pa.int64(), [1, 2, None]),
        ([1.0, math.nan], pa.float64(), [1.0, None]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, None, False], pa.bool_(), [True, None, False]),
        (["a", None], pa.string(), ["a", None]),
        (["a", 2, True, 1.5], pa.string(), ["a", "2", "true", "1.5"]),
        ([None, None], pa.string(), [None, None]),
    ],
)
def test_a_setting_has_one_type(settings: list[Any], type_: pa.DataType, expected: list[Any]) -> None:
    array: Any = setting_array(pd.Series(settings, dtype=object))
    assert array.type == type_
    assert array.to_pylist() == expected


# CSV


def test_pandas_reads_the_csv_back(swept: Path, output: Path, tmp_path: Path) -> None:
    root = copy(swept, tmp_path)
    with_texts(root, STRANGE)
    export(root, output, columns=["all"])
    (code,) = re.findall(r"^table = pandas(\.read_csv\(.*?^\))", card(output), re.DOTALL | re.MULTILINE)
    table = eval(f"pandas{code}", {"pandas": Csv(output)})
    results = cfg_lab.load_results(root)
    assert set(results["text"]) == set(STRANGE)
    lists = [name for name in results if isinstance(results[name].iloc[0], np.ndarray)]
    assert list(table.columns) == [name for name in results if name not in lists]
    for name in table.columns:
        expected = [None if value == "" else value for value in values(results[name])]
        assert values(table[name]) == expected, name


class Csv:
    """Stands for pandas in the code of a data card, and reads files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_csv(self, name: str, **arguments: Any) -> pd.DataFrame:
        return cast("Any", pd.read_csv)(self.folder / name, **arguments)


# The data card


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_counts_and_describes_every_column(swept: Path, output: Path) -> None:
    dataset = load(export(swept, output))
    text = card(output)
    distinct = len(set(dataset["completion"]))
    header = yaml.safe_load(text.split("---")[1])
    assert header["size_categories"] == ["n<1K"]
    assert f"{len(dataset)} rows, 6 cells, 3 prompts, {distinct} distinct" in text
    described = dict(re.findall(r"^\| `(.*?)` \| .*? \| (.+) \|$", text, re.MULTILINE))
    assert list(described) == dataset.column_names
    assert described["guidance.scale"] == "setting; values 1, 2, 3"
    assert described["perplexity"].startswith("score: how unexpected the text is")
    assert "python -m cfg_lab.sweep" in text
    assert all(name in text for name in set(dataset["model_fingerprint"]))


def test_every_column_of_a_results_folder_has_a_meaning() -> None:
    for column in (*CELL_COLUMNS, *COMPLETION_COLUMNS):
        if column.shown:
            assert not meaning_of(column.name).startswith("score"), column.name


def test_the_licences_of_packaged_models_are_those_of_their_options() -> None:
    """The data card reads the licence from the YAML file, and the model's module announces it."""
    for name, model in PACKAGED.items():
        text = (CONFIG / "model" / f"{name}.yaml").read_text(encoding="utf-8")
        assert f"\n# Licence of the weights: {model.licence}\n" in text


# The folder


def test_an_earlier_export_is_replaced_and_nothing_else_is(swept: Path, output: Path) -> None:
    export(swept, output)
    assert load(export(swept, output, columns=["text"])).column_names == ["text"]
    (output / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"--output: .* also holds 'mine.txt'"):
        export(swept, output)
    (output / "mine.txt").unlink()
    (output / "README.md").write_text("# Mine")
    with pytest.raises(InputError, match="exists and is not an export"):
        export(swept, output)
    with pytest.raises(InputError, match="is a file; choose a folder"):
        export(swept, output / "README.md")
    assert load(output).column_names == ["text"]


def test_without_output_the_export_is_in_the_results_folder(swept: Path, tmp_path: Path) -> None:
    root = copy(swept, tmp_path)
    before = cfg_lab.load_results(root)
    assert export(root, columns=["text"]) == root / "export"
    pd.testing.assert_frame_equal(cfg_lab.load_results(root), before)
    assert load(export(root, columns=["sample"])).column_names == ["sample"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"columns": ["text", "sentimant"]}, "--columns: there is no column 'sentimant' in these results"),
        ({"cells": ["abc"]}, "--cells: .* has no cell 'abc'"),
    ],
)
def test_what_is_not_there_is_named(
    swept: Path, output: Path, arguments: dict[str, list[str]], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        export(swept, output, **arguments)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)
    assert list(output.parent.iterdir()) == []


def test_a_folder_without_results_is_refused(tmp_path: Path, output: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        export(tmp_path / "nothing", output)
    assert not output.exists()


def command(root: Path, output: Path, *arguments: str, before: str = "") -> list[str]:
    """The command line of an export. `before` is code that the process runs first."""
    call = f"main([{str(root)!r}, '--output', {str(output)!r}, *{list(arguments)!r}])"
    return [sys.executable, "-c", f"{before}\nfrom cfg_lab.export.__main__ import main\n{call}"]


SLOW = """
import signal, time
# A process that a shell starts in the background ignores Ctrl-C, and so do the processes that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
from cfg_lab.export.rows import ExportRows
table = ExportRows.table
def slow(*arguments):
    print("writing now", flush=True)
    time.sleep(600)
ExportRows.table = slow
"""


def slow_export(root: Path, output: Path) -> subprocess.Popen[str]:
    """Start an export that stops in the middle, and wait until it is there."""
    process = subprocess.Popen(
        command(root, output, before=SLOW), stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "writing now" in line:
            return process
    raise AssertionError("the export ended before it wrote rows")


def test_ctrl_c_leaves_nothing(swept: Path, output: Path) -> None:
    process = slow_export(swept, output)
    assert len(list(output.parent.iterdir())) == 1
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert list(output.parent.iterdir()) == []


def test_the_next_export_removes_what_a_killed_one_left(swept: Path, output: Path) -> None:
    """It leaves alone the folder of an export that is still running."""
    killed = slow_export(swept, output)
    killed.kill()
    killed.communicate()
    assert not output.exists()
    (leftover,) = output.parent.iterdir()
    running = slow_export(swept, output)
    try:
        (draft,) = output.parent.iterdir()
        assert draft != leftover
        export(swept, output, columns=["text"])
        assert set(output.parent.iterdir()) == {output, draft}
    finally:
        running.kill()
        running.communicate()
    export(swept, output, columns=["text"])
    assert list(output.parent.iterdir()) == [output]


def test_exports_at_once_leave_one_complete_export(swept: Path, output: Path) -> None:
    def write(_: int) -> Path:
        return export(swept, output, columns=["text", "sample"])

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(write, range(8))) == {output}
    assert_equal(load(output), cfg_lab.load_results(swept)[["text", "sample"]])
    assert list(output.parent.iterdir()) == [output]


def test_a_full_disk_is_one_sentence_and_the_earlier_export_stays(swept: Path, output: Path) -> None:
    """The kernel refuses to write more than 5,000 bytes per file, as a full disk would."""
    export(swept, output, columns=["sample"])
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import cfg_lab.export.write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"
    )
    process = subprocess.run(
        command(swept, output, "--columns", "all", before=limit),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert process.returncode == 2, process.stderr
    assert re.fullmatch(
        r"error: could not write the export \(.*\); nothing of it is left: make room, .*\n", process.stderr
    )
    assert load(output).column_names == ["sample"]
    assert list(output.parent.iterdir()) == [output]


def test_cells_that_change_meanwhile_are_noticed(
    swept: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy(swept, tmp_path)
    original = rows.ExportRows.table

    def changed(self: rows.ExportRows, window: rows.SortedWindow) -> pa.Table:
        (path, *_) = sorted((root / "cells").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(path)  # as a sweep does that writes the cell again
        return original(self, window)

    monkeypatch.setattr(rows.ExportRows, "table", changed)
    with pytest.raises(StoreError, match="a sweep has changed cells"):
        export(root, output)
    assert not output.exists()


def test_the_command_prints_paths(swept: Path, output: Path) -> None:
    arguments = [sys.executable, "-m", "cfg_lab.export", str(swept), "--output", str(output)]
    process = subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=True)
    for name in ("", "texts.csv", "README.md"):
        assert str(output / name) in process.stdout
    assert re.search(r"writing 36/36 texts in [\d.]+ s", process.stdout)
    wrong = [*arguments, "--columns", "nothing"]
    refused = subprocess.run(wrong, capture_output=True, text=True, env=environment(), check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --columns: there is no column 'nothing'")
    assert refused.stderr.count("\n") == 1
