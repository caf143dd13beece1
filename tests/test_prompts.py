"""Prompt sets: from a config, from files, and from datasets."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cfg_lab.errors import InputError
from cfg_lab.prompts import (
    Prompt,
    from_dataset,
    from_file,
    inline,
    of_this_lab,
    parse_phrases,
    written_out,
)

RECORDS = [
    {"id": "a", "text": "One, two", "negative": "sad:0.5, grim"},
    {"id": "b", "text": 'Say "hi"\nthere', "negative": None},
]
PROMPTS = [
    Prompt(id="a", text="One, two", negative="sad:0.5, grim"),
    Prompt(id="b", text='Say "hi"\nthere'),
]

OF_THIS_LAB = {"_target_": "cfg_lab.prompts.of_this_lab"}
"""The node of an option whose prompts are in a file of the lab, without the name of the set."""

MARK = "\N{BYTE ORDER MARK}"


def write(path: Path, records: Sequence[dict[str, Any]], start: str = "", newline: str = "\n") -> str:
    """Write records to a file of the kind that its name says, and return its path.

    Args:
        path: the file.
        records: all with the same keys.
        start: text before the records, such as a byte-order mark.
        newline: end of each line.
    """
    if path.suffix == ".parquet":
        pd.DataFrame(records).to_parquet(path)
        return str(path)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(start)
        if path.suffix == ".csv":
            # Python 3.11 does not quote a carriage return by itself.
            quoting = (
                csv.QUOTE_ALL
                if any("\r" in str(value) for record in records for value in record.values())
                else csv.QUOTE_MINIMAL
            )
            writer = csv.DictWriter(file, list(records[0]), lineterminator=newline, quoting=quoting)
            writer.writeheader()
            writer.writerows(records)
        elif path.suffix == ".jsonl":
            file.writelines(json.dumps(record, ensure_ascii=False) + newline for record in records)
        else:
            file.writelines(record["text"] + newline for record in records)
    return str(path)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_prompts(tmp_path: Path, ending: str) -> None:
    records = [{**record, "unrelated": 1} for record in RECORDS]
    assert from_file(write(tmp_path / f"prompts.{ending}", records)) == PROMPTS


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    str.strip
)
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1).filter(
    str.strip
)


@settings(deadline=None)
@given(
    st.sampled_from(["jsonl", "csv", "parquet"]),
    st.lists(st.tuples(TEXTS, st.none() | TEXTS), min_size=1),
    st.sampled_from(["\n", "\r\n"]),
)
@example("jsonl", [("a\u2028b\x85c\x0cd\x1ee", None)], "\n")
@example("csv", [("\r0", "0\r"), ("0\r\n", None)], "\n")
@example("csv", [("a\u2028b\x85c\x0cd\x1ee", "\N{BYTE ORDER MARK}x")], "\r\n")
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, ending: str, texts: list[tuple[str, str | None]], newline: str
) -> None:
    """Whatever Unicode a text contains, with a byte-order mark and without."""
    path = tmp_path_factory.mktemp("written") / f"prompts.{ending}"
    records = [{"text": text, "system": system} for text, system in texts]
    for start in (MARK,) if texts[0][0].startswith(MARK) else (MARK, ""):
        prompts = from_file(write(path, records, start, newline))
        assert [(prompt.text, prompt.system) for prompt in prompts] == texts


@settings(deadline=None)
@given(st.lists(LINES, min_size=1), st.sampled_from(["\n", "\r\n"]))
@example(["a\u2028b\x85c\x0cd\x1ee\x0bf\u2029"], "\n")
def test_every_line_of_a_text_file_is_one_prompt(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], newline: str
) -> None:
    """Only a newline ends a line, whatever else Unicode calls a line separator."""
    path = tmp_path_factory.mktemp("written") / "prompts.txt"
    records = [{"text": line} for line in lines]
    assert [prompt.text for prompt in from_file(write(path, records, MARK, newline))] == lines


def test_control_characters_in_a_json_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "page one\x0cpage\ttwo"}\n')
    assert [prompt.text for prompt in from_file(str(path))] == ["page one\x0cpage\ttwo"]


def test_what_the_datasets_library_logs_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads the cached copy of a folder that was deleted, and only logs it."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "quotes"
    folder.mkdir()
    write(folder / "test.jsonl", RECORDS)
    prompts = from_dataset("quotes", split="test")
    shutil.rmtree(folder)
    with pytest.warns(UserWarning, match="cached"):
        assert from_dataset("quotes", split="test") == prompts


def test_a_text_file_has_one_prompt_per_line(tmp_path: Path) -> None:
    lines = tmp_path / "p.txt"
    lines.write_text("One\n\n  \nTwo\nThree\n")
    assert from_file(str(lines), limit=2, system="S") == [
        Prompt(id="1", text="One", system="S"),
        Prompt(id="2", text="Two", system="S"),
    ]


def test_another_column_can_hold_the_text(tmp_path: Path) -> None:
    table = tmp_path / "p.CSV"
    table.write_text("question,answer,negative\nWhy?,So,dull\n")
    assert from_file(str(table), column="question") == [Prompt(id="1", text="Why?", negative="dull")]
    table.write_text("question,text\n,x\n")
    with pytest.raises(InputError, match="prompt 1 has no text"):
        from_file(str(table), column="question")


@pytest.mark.parametrize(
    "content",
    [
        'text, negative ,id\nHi, "sad, bleak",1\n\n,,\n"So, so",cold, 2\n',
        'text,negative,id\nHi,"sad, bleak",1\n"So, so",cold,2\n',
        'text,negative,id\nHi, "sad, bleak",1\n"So, so",cold,2\n',
    ],
)
def test_spaces_after_the_commas_of_a_table_are_skipped(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(content)
    assert from_file(str(path)) == [
        Prompt(id="1", text="Hi", negative="sad, bleak"),
        Prompt(id="2", text="So, so", negative="cold"),
    ]


def test_a_prompt_keeps_its_own_system_message(tmp_path: Path) -> None:
    """Also if it is empty, which is not the same as the model's default."""
    path = tmp_path / "p.jsonl"
    systems = ['"mine"', "null", '""']
    path.write_text("".join(f'{{"text": "a", "system": {system}}}\n' for system in systems))
    assert [prompt.system for prompt in from_file(str(path), system="S")] == ["mine", "S", ""]
    path = tmp_path / "p.csv"
    path.write_text("text,system\na,mine\nb,\n")
    assert [prompt.system for prompt in from_file(str(path), system="S")] == ["mine", "S"]


def test_a_written_prompt_has_every_field() -> None:
    fields = {"id": 7, "text": "a", "negative": "b", "system": "c", "reference": "d"}
    assert inline([fields]) == [Prompt(id="7", text="a", negative="b", system="c", references=("d",))]
    assert inline([{"text": "a", "id": None, "negative": "", "references": []}]) == [Prompt(id="1", text="a")]


@pytest.mark.parametrize("make", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_a_list_is_several_phrases_or_several_references(make: Any) -> None:
    record = {"text": "a", "negative": make(["sad:0.8", "cold, wet"]), "references": make(["x", "y"])}
    (prompt,) = inline([record])
    assert prompt.references == ("x", "y")
    assert prompt.negative == r"sad:0.8, cold\, wet"
    phrases = parse_phrases(prompt.negative)
    assert [(phrase.text, phrase.weight) for phrase in phrases] == [("sad", 0.8), ("cold, wet", 1)]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_lists_in_files(tmp_path: Path, ending: str) -> None:
    record = {"text": "a", "negative": ["sad", "bleak"], "reference": ["x", "y"]}
    expected = [Prompt(id="1", text="a", negative="sad, bleak", references=("x", "y"))]
    path = write(tmp_path / f"p.{ending}", [record])
    assert from_file(path) == expected
    builder = "json" if ending == "jsonl" else "parquet"
    assert from_dataset(builder, data_files=path, split="train") == expected


def test_datasets(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("q,reference,other\nOne,1,x\nTwo,2,x\nThree,3,x\n")
    prompts = from_dataset(str(tmp_path), column="q", split="train[1:]", limit=1)
    assert prompts == [Prompt(id="1", text="Two", references=("2",))]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": 7}, 'prompt 2: text must be a text, got 7; write it as text: "7"'),
        ({"text": ["a"]}, r"prompt 2: text must be a text, got \['a'\]"),
        ({"text": " "}, "prompt 2 has no text, got ' '"),
        ({"text": None}, "prompt 2 has no text, got None"),
        ({"text": "b", "id": True}, "prompt 2: id must be a text, got True"),
        ({"text": "b", "id": ["x"]}, r"prompt 2: id must be a text, got \['x'\]"),
        ({"text": "b", "negative": 0.5}, r"prompt 2: negative must be a text, got 0\.5"),
        ({"text": "b", "negative": {"sad": 0.5}}, r"prompt 2: negative must be a text, got \{'sad': 0\.5\}"),
        ({"text": "b", "negative": ["sad", 1]}, "prompt 2: negative must be a text, got 1"),
        ({"text": "b", "negative": ["sad", ["x"]]}, r"prompt 2: negative must be a text, got \['x'\]"),
        ({"text": "b", "negative": ["sad", " "]}, r"negative must be texts that are not empty, got \['sad'"),
        ({"text": "b", "negative": "['sad', 'x']"}, "negative is a list that was written as text"),
        ({"text": "b", "negative": "['sad', \"isn't\"]"}, "negative is a list that was written as text"),
        ({"text": "b", "negative": '["sad"]'}, "negative is a list that was written as text"),
        ({"text": "b", "references": "['x', 'y']"}, "references is a list that was written as text"),
        (
            {"text": "b", "negative": "see http://x: bad"},
            r"negative: more than one colon in 'see http://x: bad'",
        ),
        ({"text": "b", "negative": ["sad", "cold:wet"]}, r"negative: weight 'wet' at position 5"),
        ({"text": "b", "system": False}, "prompt 2: system must be a text, got False"),
        ({"text": "b", "reference": {"text": ["x"]}}, "prompt 2: reference must be a text, got {'text'"),
        ({"text": "b", "references": ["x", True]}, "prompt 2: references must be a text, got True"),
        ({"text": "b", "reference": 0.1}, r'reference must be a text, got 0\.1; write it as text: "0\.1"'),
        ({"text": "b", "reference": ["x", ""]}, "reference must be texts that are not empty"),
        ({"text": "b", "reference": "x", "references": ["y"]}, "prompt 2 has both reference and references"),
        ({"text": "b", "negativ": "c"}, "prompt 2 has an unknown field 'negativ'; fields are id, text"),
        ({"text": "b\ud800"}, "prompt 2: text is not valid Unicode: character 2 is half of a surrogate pair"),
        ({"text": "b", "negative": ["\udc00"]}, "prompt 2: negative is not valid Unicode"),
        ("b", "prompt 2 must be a mapping with the key text, got 'b'"),
    ],
)
def test_a_record_that_is_no_prompt_is_named(record: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        inline([{"text": "a"}, record])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=6,
)


@given(st.fixed_dictionaries({"text": JSON}, optional=dict.fromkeys(["id", "negative", "system"], JSON)))
def test_the_content_of_a_prompt_is_text_that_was_written(record: dict[str, Any]) -> None:
    """Nothing but a text becomes text: no list, mapping or truth value as Python writes it."""
    try:
        (prompt,) = inline([record])
    except InputError:
        return
    assert prompt.text == record["text"]
    assert prompt.system == (record.get("system") if isinstance(record.get("system"), str) else None)
    negative = record.get("negative")
    if isinstance(negative, str):
        assert (prompt.negative or "") == negative
    elif negative:
        assert unescaped(prompt.negative or "") == ", ".join(map(unescaped, negative))
    else:
        assert prompt.negative is None


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", "has no prompts"),
        ("p.txt", "One\rTwo", r"line 1 has a carriage return inside; lines end with \\n or \\r\\n"),
        ("p.txt", "a\n\0b", "line 2 has a NUL character"),
        ("p.jsonl", "\n", "has no prompts"),
        ("p.jsonl", '{"text": "a"}\n{"text": ', r"p\.jsonl: line 2 is not JSON"),
        ("p.jsonl", '"a"\n', "line 1 must be a JSON object"),
        ("p.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("p.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}', "line 2 has the key 'text' 2 times"),
        ("p.jsonl", '{"text": "a", " text": "c"}', "has two columns with the same name"),
        ("p.jsonl", '{"text": "a", "negative": [1]}', r"p\.jsonl: prompt 1: negative must be a text, got 1"),
        ("p.jsonl", '{"prompt": "a"}', r"prompts\.column is 'text', but .* has prompt"),
        ("p.jsonl", '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}', "two prompts have the id '1'"),
        ("p.csv", "text\n", "has no prompts"),
        ("p.csv", "\n", "has no prompts"),
        ("p.csv", "a\n1\n", r"prompts\.column is 'text', but .* has a"),
        ("p.csv", "text,id\nHello, you,1\n", "line 2 has 3 fields, and the header has 2; put a text that"),
        ("p.csv", "text,id\nHello\n", "line 2 has 1 fields, and the header has 2"),
        (
            "p.csv",
            'text,id\na,1\n"b,2\nc,3\n',
            "row that begins in line 3 is not CSV: unexpected end of data",
        ),
        ("p.csv", 'text,id\na,1\n"b,2\n"c",3\n', "row that begins in line 3 is not CSV: ',' expected after"),
        ("p.csv", "text\nOne\rTwo\n", "line 2 is not CSV: new-line character seen in unquoted field"),
        ("p.csv", "text\rOne\rTwo\r", "line 1 is not CSV: new-line character seen in unquoted field"),
        ("p.csv", f"text\n{'x' * 200_000}\n", "line 2 is not CSV: field larger than field limit"),
        ("p.csv", "text,id,text\na,1,b\n", "the header has the name 'text' 2 times"),
        ("p.csv", "text\na\0b\n", "line 2 has a NUL character"),
        ("p.csv", "text,negative\nHi,\"['sad', 'bleak']\"\n", "negative is a list that was written as text"),
        ("p.xlsx", "a", r"must end in \.jsonl"),
        ("p.parquet", "not parquet", "could not be read"),
        (None, "", "which is not a file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str | None, content: str, message: str) -> None:
    path = tmp_path / (name or "missing.txt")
    if name:
        path.write_text(content, newline="")
    with pytest.raises(InputError, match=message):
        from_file(str(path))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "the file is in UTF-16"),
        ("utf-32", "the file is in UTF-16 or UTF-32"),
        ("utf-16-le", "line 1 has a NUL character|line 2 is not in UTF-8"),
        ("latin-1", "line 2 is not in UTF-8"),
    ],
)
def test_files_in_another_encoding_are_refused(
    tmp_path: Path, ending: str, encoding: str, message: str
) -> None:
    path = tmp_path / f"p.{ending}"
    line = '{"text": "déjà"}\n' if ending == "jsonl" else "text déjà\n"
    path.write_bytes(f"\n{line}".encode(encoding))
    with pytest.raises(InputError, match=message):
        from_file(str(path))


def test_a_column_of_another_type_is_named_as_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", [{"question": 7}])
    with pytest.raises(InputError, match="prompt 1: question must be a text, got 7"):
        from_file(path, column="question")


@pytest.mark.parametrize("limit", [0, -1, "2", True, 1.5])
def test_a_wrong_limit_is_named(limit: Any) -> None:
    with pytest.raises(InputError, match=rf"prompts\.limit must be a whole number .*, got {limit!r}"):
        inline([{"text": "a"}], limit=limit)


def test_a_set_without_prompts_or_with_a_wrong_system_message() -> None:
    with pytest.raises(InputError, match="needs at least one"):
        inline([])
    with pytest.raises(InputError, match=r"prompts\.system must be a text, got 7"):
        inline([{"text": "a"}], system=7)  # pyright: ignore[reportArgumentType]


def test_a_single_text_is_no_tuple_of_references() -> None:
    with pytest.raises(InputError, match="references must be a tuple of texts, got 'Paris'"):
        Prompt(id="a", text="b", references="Paris")  # pyright: ignore[reportArgumentType]


def test_files_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.jsonl", [{"text": "a", name: 1}]) for name in ("x", "y")]
    with pytest.raises(InputError, match=r"prompts\.name is 'json' with split 'train'.*(column|cast)"):
        from_dataset("json", data_files=paths, split="train")


def test_a_builder_reads_only_the_files_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "p.jsonl", RECORDS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"prompts\.name is 'json', which reads files; set prompts\.data_"):
        from_dataset("json", split="train")
    assert from_dataset("json", data_files="p.jsonl", split="train") == PROMPTS


def test_a_missing_dataset_is_named() -> None:
    with pytest.raises(InputError, match=r"prompts\.name is 'no/such-set'"):
        from_dataset("no/such-set")


@given(texts=st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=12, max_size=40, unique=True))
def test_the_half_of_a_prompt_depends_on_nothing_but_its_text(texts: list[str]) -> None:
    """Else a prompt that took part in a choice could be in the report."""
    records = [{"text": text, "id": f"p{number}"} for number, text in enumerate(texts)]
    halves = {half: _texts_of_half(records, half) for half in ("selection", "held_out")}
    assert halves["selection"] | halves["held_out"] == set(texts)
    assert not halves["selection"] & halves["held_out"]
    others = {"negative": "bad", "system": "Be kind."}
    changed = [{"text": text, **others} for text in [*reversed(texts), "another text"]]
    for half, texts_of_half in halves.items():
        assert texts_of_half == _texts_of_half(changed, half) - {"another text"}


def _texts_of_half(records: list[dict[str, str]], half: Any) -> set[str]:
    try:
        return {prompt.text for prompt in inline(records, half=half)}
    except InputError:  # all prompts are in the other half
        return set()


def test_the_halves_of_the_recorded_openers_are_of_about_equal_size() -> None:
    assert 90 <= len(of_this_lab("openers_200", half="selection")) <= 110
    first = of_this_lab("openers_200", half="held_out", limit=20)
    assert first == of_this_lab("openers_200", half="held_out")[:20]  # the limit counts prompts of the half


@pytest.mark.parametrize("name", ["openers", "", None, 200, ["openers_200"]])
def test_an_unknown_set_of_this_lab_is_refused(name: Any) -> None:
    message = re.escape("prompts.set_name must be one of openers_200, translation, got " + repr(name))
    for use in (of_this_lab, lambda name: written_out({**OF_THIS_LAB, "set_name": name})):
        with pytest.raises(InputError, match=f"^{message}$"):
            use(name)
    with pytest.raises(InputError, match="got None"):
        written_out(OF_THIS_LAB)


@pytest.mark.parametrize("half", ["first", True, 1])
def test_a_wrong_half_is_named(half: Any) -> None:
    with pytest.raises(InputError, match=rf"prompts\.half must be selection, held_out or null, got {half!r}"):
        inline([{"text": "a"}], half=half)
