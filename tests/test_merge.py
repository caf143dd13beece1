"""Merging small files changes no result, whatever happens: kills, other merges, writers, readers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cfg_lab.errors import StoreError
from cfg_lab.study import merge
from cfg_lab.study.columns import COMPLETION_SCHEMA
from cfg_lab.study.merge import merge_small_files
from cfg_lab.study.store import Store
from tests.test_store import row


def score(text: int, value: float, scorer: str = "length") -> dict[str, Any]:
    return {"text": f"id{text}", "scorer": scorer, "column": "length", "value": value}


def fill(store: Store, files: int = 6) -> None:
    """Write files of three texts with a score each. A text of each file is in the next file too."""
    for number in range(files):
        texts = range(2 * number, 2 * number + 3)
        store.add_completions([row(text) for text in texts])
        # The later file has another score of the text that two files have.
        store.add_scores([score(text, 100 * number + text) for text in texts])


def names(store: Store, folder: str) -> set[str]:
    return {path.name for path in (store.root / folder).iterdir()}


def assert_same_results(store: Store, completions: pd.DataFrame, scores: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(store.completions(), completions)
    pd.testing.assert_frame_equal(store.scores(), scores)


def test_merged_files_hold_the_same_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store)
    before = store.completions(), store.scores()
    assert merge_small_files(store) == 2 * 6
    assert_same_results(store, *before)
    assert len(names(store, "completions")) == len(names(store, "scores")) == 1
    assert merge_small_files(store) == 0
    store.add_completions([row(99)])
    store.add_scores([score(0, -1)])
    before = store.completions(), store.scores()
    assert before[1].loc["id0", "length"] == -1
    assert merge_small_files(store) == 4
    assert_same_results(store, *before)


def test_large_files_stay_and_the_score_written_last_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "ROWS_OF_SCORES", 4)
    store = Store(tmp_path)
    values: list[float] = []
    for number, size in enumerate([1, 1, 5, 1, 1, 1, 1, 7, 1, 1]):
        path = store.add_scores([score(0, number)] * size)
        os.utime(path, ns=(number, number))
        values.append(number)
        assert store.scores().loc["id0", "length"] == number
    merge_small_files(store)
    assert store.scores().loc["id0", "length"] == values[-1]
    files = sorted((store.root / "scores").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [pq.read_table(path)["value"].to_pylist() for path in files] == [
        [0, 1],
        [2] * 5,
        [3, 4, 5, 6],
        [7] * 7,
        [8, 9],
    ]


def test_older_files_are_merged_under_the_present_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = store.add_completions([row(1) | {"tokens_read": [4, 5]}])
    table = pq.read_table(old).rename_columns({"tokens_read": "processed"}).drop_columns("choices")
    pq.write_table(table, old)
    store.add_completions([row(2) | {"tokens_read": [6]}])
    before = store.completions(), store.scores()
    assert [list(value) for value in before[0]["tokens_read"]] == [[4, 5], [6]]
    merge_small_files(store)
    assert_same_results(store, *before)
    (merged,) = (tmp_path / "completions").iterdir()
    assert pq.read_schema(merged).equals(COMPLETION_SCHEMA)


KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from cfg_lab.study import merge
from cfg_lab.study.store import Store

steps = int(sys.argv[2])

def counted(function):
    def call(*arguments, **options):
        global steps
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

os.fsync = counted(os.fsync)
os.utime = counted(os.utime)
Path.rename = counted(Path.rename)
Path.unlink = counted(Path.unlink)
pq.ParquetWriter.write_table = counted(pq.ParquetWriter.write_table)
merge.merge_small_files(Store(sys.argv[1]))
"""


def test_a_merge_killed_at_any_step_loses_nothing_and_is_completed_by_the_next(tmp_path: Path) -> None:
    statuses: list[int] = []
    while not statuses or statuses[-1] != 0:
        store = Store(tmp_path / str(len(statuses)))
        fill(store, files=3)
        before = store.completions(), store.scores()
        step = str(len(statuses) + 1)
        done = subprocess.run([sys.executable, "-c", KILLED, str(store.root), step], check=False)
        statuses.append(done.returncode)
        assert_same_results(store, *before)
        merge_small_files(store)
        assert_same_results(store, *before)
        for folder in ("completions", "scores"):
            (merged,) = (name for name in names(store, folder) if not name.startswith("."))
            assert len(pq.read_table(store.root / folder / merged)) == 9
    assert len(statuses) > 12
    assert set(statuses[:-1]) == {-signal.SIGKILL}


WRITER = """
import sys
from cfg_lab.study.store import Store
from tests.test_merge import fill
from tests.test_store import row
store = Store(sys.argv[1])
for number in range(40):
    store.add_completions([row(1000 + number)])
    store.add_scores([{"text": f"id{number}", "scorer": "other", "column": "other", "value": number}])
"""
MERGER = """
import sys
from pathlib import Path
from cfg_lab.study.merge import merge_small_files
from cfg_lab.study.store import Store
while not Path(sys.argv[2]).exists():
    merge_small_files(Store(sys.argv[1]))
"""


def test_two_merges_a_writer_and_a_reader_at_once(tmp_path: Path) -> None:
    store, end = Store(tmp_path / "results"), tmp_path / "end"
    fill(store, files=20)
    expected = store.completion_ids() | {f"id{1000 + number}" for number in range(40)}
    lengths = store.scores()["length"]

    def start(code: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, str(store.root), str(end)])

    mergers, writer = [start(MERGER), start(MERGER)], start(WRITER)
    seen: set[str] = set()
    while writer.poll() is None:
        ids = store.completion_ids()
        assert seen <= ids
        seen = ids
        assert store.scores()["length"].reindex(lengths.index).equals(lengths)
    end.touch()
    assert [process.wait() for process in (writer, *mergers)] == [0, 0, 0]
    assert store.completion_ids() == expected
    merge_small_files(store)
    assert len(names(store, "completions")) == len(names(store, "scores")) == 1
    assert store.completion_ids() == expected
    scores = store.scores()
    assert scores["length"].dropna().equals(lengths)
    assert scores["other"].notna().sum() == 40


def test_a_full_disk_leaves_the_originals(tmp_path: Path) -> None:
    """The kernel refuses to write more than 1,000 bytes per file, as a full disk would."""
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from cfg_lab.errors import StoreError
from cfg_lab.study.merge import merge_small_files
from cfg_lab.study.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    merge_small_files(Store({str(tmp_path)!r}))
except StoreError as error:
    sys.exit(f"told: {{error}}")
"""
    store = Store(tmp_path)
    fill(store)
    before = names(store, "completions"), store.completions()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "told: could not write" in done.stderr
    assert names(store, "completions") == before[0]
    pd.testing.assert_frame_equal(store.completions(), before[1])


def test_a_damaged_file_is_named_and_nothing_is_merged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_completions([row(1)])
    damaged = store.add_completions([row(2)])
    damaged.write_bytes(damaged.read_bytes()[:500])
    before = names(store, "completions")
    with pytest.raises(StoreError, match=rf"{damaged.name} is damaged or cut short"):
        merge_small_files(store)
    assert names(store, "completions") == before


def test_a_file_whose_content_is_damaged_is_named(tmp_path: Path) -> None:
    """The footer is whole, so the damage shows only when rows are read."""
    store = Store(tmp_path)
    store.add_completions([row(1)])
    damaged = store.add_completions([row(2)])
    content = bytearray(damaged.read_bytes())
    content[4:1500] = bytes(1496)
    damaged.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{damaged.name} is damaged or cut short"):
        merge_small_files(store)
    assert len(names(store, "completions")) == 2
