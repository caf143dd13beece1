"""Prompt sets: from a config, from files, and from datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cfg_lab.errors import InputError
from cfg_lab.prompts import Prompt, from_dataset, from_file, inline

RECORDS = [
    {"id": "a", "text": "One, two", "negative": "sad:0.5, grim"},
    {"id": "b", "text": 'Say "hi"\nthere', "negative": None},
]
PROMPTS = [
    Prompt(id="a", text="One, two", negative="sad:0.5, grim"),
    Prompt(id="b", text='Say "hi"\nthere'),
]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_prompts(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"prompts.{ending}"
    frame = pd.DataFrame([{**record, "unrelated": 1} for record in RECORDS])
    if ending == "jsonl":
        path.write_text("\n\n".join(map(json.dumps, frame.to_dict("records"))))
    elif ending == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    assert from_file(str(path)) == PROMPTS


def test_a_text_file_has_one_prompt_per_line(tmp_path: Path) -> None:
    lines = tmp_path / "p.txt"
    lines.write_text("One\n\n  \nTwo\nThree\n")
    assert from_file(str(lines), limit=2, system="S") == [
        Prompt(id="1", text="One", system="S"),
        Prompt(id="2", text="Two", system="S"),
    ]


@pytest.mark.parametrize("start", ["", "\N{BYTE ORDER MARK}"])
def test_another_column_can_hold_the_text(tmp_path: Path, start: str) -> None:
    """Also in a file with a byte-order mark, as Excel writes it."""
    table = tmp_path / "p.csv"
    table.write_text(f"{start}question,answer,negative\nWhy?,So,dull\n")
    assert from_file(str(table), column="question") == [Prompt(id="1", text="Why?", negative="dull")]


def test_a_prompt_keeps_its_own_system_message(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "a", "system": "mine"}\n{"text": "b", "system": null}\n{"text": "c"}\n')
    assert [prompt.system for prompt in from_file(str(path), system="S")] == ["mine", "S", "S"]


def test_a_written_prompt_has_every_field() -> None:
    fields = {"id": 7, "text": "a", "negative": "b", "system": "c", "reference": "d"}
    assert inline([fields]) == [Prompt(id="7", text="a", negative="b", system="c", references=("d",))]


def test_datasets(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("q,reference,other\nOne,1,x\nTwo,2,x\nThree,3,x\n")
    prompts = from_dataset(str(tmp_path), column="q", split="train[1:]", limit=1)
    assert prompts == [Prompt(id="1", text="Two", references=("2",))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", "has no prompts"),
        ("p.jsonl", "\n", "has no prompts"),
        ("p.csv", "text\n", "has no prompts"),
        ("p.jsonl", '{"text": "a"}\n{"text": ', "line 2 of .* is not JSON"),
        ("p.jsonl", '"a"\n', "line 1 of .* must be a JSON object"),
        ("p.jsonl", '{"text": " "}', "prompt 1 has no text, got ' '"),
        ("p.jsonl", '{"text": 7}', "prompt 1 has no text, got 7"),
        ("p.jsonl", '{"prompt": "a"}', r"prompts\.column is 'text', but .* has prompt"),
        ("p.jsonl", '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}', "two prompts have the id '1'"),
        ("p.xlsx", "a", r"must end in \.jsonl"),
        ("p.parquet", "not parquet", "could not be read"),
        (None, "", "which is not a file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str | None, content: str, message: str) -> None:
    path = tmp_path / (name or "missing.txt")
    if name:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        from_file(str(path))


def test_bad_inline_sets() -> None:
    with pytest.raises(InputError, match=r"prompt 2 has an unknown field 'negativ'; fields are id, text"):
        inline([{"text": "a"}, {"text": "b", "negativ": "c"}])
    with pytest.raises(InputError, match="needs at least one"):
        inline([])
    with pytest.raises(InputError, match=r"prompts\.limit must be at least 1, got 0"):
        inline([{"text": "a"}], limit=0)


def test_a_missing_dataset_is_named() -> None:
    with pytest.raises(InputError, match=r"prompts\.name is 'no/such-set'"):
        from_dataset("no/such-set")
