"""Files of a results folder are complete or absent; what is finished is never lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cfg_lab.errors import InputError, StoreError
from cfg_lab.study.columns import COMPLETION_SCHEMA
from cfg_lab.study.store import Store


def row(number: int) -> dict[str, Any]:
    """A row of completions with made-up values."""
    values: dict[str, Any] = {
        field.name: [1, 2] if pa.types.is_list(field.type) and field.type.value_type == pa.int32() else None
        for field in COMPLETION_SCHEMA
    }
    return {**values, "id": f"id{number}", "text": f"text {number}", "trace_guided": [-0.5, float("nan")]}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    assert store.completion_ids() == set()
    store.add_completions([row(1), row(2)])
    store.add_completions([row(3)])
    assert store.completion_ids() == {"id1", "id2", "id3"}
    read = store.completions().set_index("id")
    assert read.loc["id3", "text"] == "text 3"
    assert list(read.loc["id1", "tokens"]) == [1, 2]


def test_a_text_that_two_sweeps_decoded_is_read_once(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.add_completions([row(1), row(2)])
    second.add_completions([row(2), row(3)])
    second.add_completions([row(1), row(2)])
    assert sorted(first.completions()["id"]) == ["id1", "id2", "id3"]
    assert len(list((tmp_path / "completions").iterdir())) == 2


def test_the_score_written_last_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_scores([{"text": "a", "scorer": "old", "column": "x", "value": 1.0}])
    store.add_scores([{"text": "a", "scorer": "new", "column": "x", "value": 2.0}])
    assert store.scores().loc["a", "x"] == 2
    assert store.scored() == {("a", "old"), ("a", "new")}


@pytest.mark.parametrize("size", [0, 10, 400])
def test_a_file_cut_short_is_named_and_the_others_are_read(tmp_path: Path, size: int) -> None:
    store = Store(tmp_path)
    damaged, whole = store.add_completions([row(1)]), store.add_completions([row(2)])
    damaged.write_bytes(damaged.read_bytes()[:size])
    with pytest.raises(StoreError, match=rf"{damaged.name} is damaged or cut short .* delete this file"):
        store.completion_ids()
    damaged.unlink()
    assert whole.is_file()
    assert store.completion_ids() == {"id2"}


def test_a_full_disk_is_named_and_leaves_no_incomplete_file(tmp_path: Path) -> None:
    """The kernel refuses to write more than 1,000 bytes per file, as a full disk would."""
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from tests.test_store import row
from cfg_lab.study.columns import COMPLETION_SCHEMA
from cfg_lab.study.store import Store
from cfg_lab.errors import StoreError
store = Store({str(tmp_path)!r})
store.add_completions([row(1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.add_completions([row(2)])
except StoreError as error:
    sys.exit(f"told: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "told: could not write" in done.stderr
    assert "What was finished before is kept: make room" in done.stderr
    assert Store(tmp_path).completion_ids() == {"id1"}
    assert len(list((tmp_path / "completions").iterdir())) == 1


def test_processes_that_write_one_file_at_once_leave_a_complete_one(tmp_path: Path) -> None:
    """Jobs of one sweep write the same config.yaml. A reader sees one of them, never a mixture."""
    code = """
import json, sys
from cfg_lab.study.store import Store
store = Store(sys.argv[1])
for number in range(150):
    store.write_text("config.yaml", json.dumps([sys.argv[2]] * (500 + number)))
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name])
        for name in ("first", "second", "third")
    ]
    reads: set[str] = set()
    while any(writer.poll() is None for writer in writers):
        if content := Store(tmp_path).read_text("config.yaml"):
            (name,) = set(json.loads(content))
            reads.add(name)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert reads <= {"first", "second", "third"}
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"results_root/name is .*/file/x'.* choose another results_root"):
        Store(tmp_path / "file" / "x").check_writable()


@pytest.mark.parametrize("content", ["{", "{}", "[]", "null", '{"started": "2026"}'])
def test_a_damaged_cost_is_named(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    path = store.write_text("costs/a.json", content)
    with pytest.raises(StoreError, match=rf"{path.name} is damaged .* delete it"):
        store.costs()
