"""References: the good answers of a prompt, from the prompt file to the score."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import cfg_lab
from cfg_lab.score import run
from tests.cli import on, sweep

METRICS = "metrics=[answer,rouge]"


def swept(folder: Path, model: Path, references: object) -> Path:
    """The results of a sweep over one prompt with references, scored by metrics that compare with them."""
    path = folder / "questions.jsonl"
    path.write_text(json.dumps({"text": "Text", "reference": references}))
    sweep(*on(folder, model), f"prompts.path={path}", METRICS, "negatives=empty", "guidance.scale=1")
    return folder / "results" / "study"


def test_the_best_of_several_references_counts(tmp_path: Path, tiny_folder: Path) -> None:
    """The reference that equals the text of a sample is found wherever it stands in the list."""
    first = cfg_lab.load_results(swept(tmp_path, tiny_folder, "Paris"))
    assert first["exact_match"].tolist() == [0, 0]
    answer = first["text"].iloc[0]
    for references in ([answer, "Paris"], ["Paris", answer]):
        folder = tmp_path / str(references.index(answer))
        folder.mkdir()
        scores = cfg_lab.load_results(swept(folder, tiny_folder, references))
        assert scores["exact_match"].iloc[0] == 1


def test_references_of_older_folders_are_read(tmp_path: Path, tiny_folder: Path) -> None:
    """They are one text per prompt, in a column of another name."""
    root = swept(tmp_path, tiny_folder, "Paris")
    before = cfg_lab.load_results(root)
    for path in root.glob("cells/*.parquet"):
        table = pq.read_table(path)
        texts = pa.array([references[0] for references in table["prompt_references"].to_pylist()])
        older = table.drop_columns(["prompt_references"]).append_column("prompt_reference", texts)
        pq.write_table(older.replace_schema_metadata(table.schema.metadata), path)
    for path in root.glob("scores/*.parquet"):
        path.unlink()
    run(str(root), [METRICS])
    after = cfg_lab.load_results(root)
    columns = ["exact_match", "token_f1", "rouge_l"]
    assert after[columns].equals(before[columns])
    assert not any(map(math.isnan, after["exact_match"]))
