"""Negatives from a file: read strictly, and their content names the cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfg_lab import Prompt
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import FileNegative, PhraseNegative
from cfg_lab.prompts import Phrase, parse_phrases
from cfg_lab.prompts.phrases import write_phrases
from tests.cli import on, sweep

KNIGHT = Prompt(id="knight", text="A knight", negative="cliche")


def file(folder: Path, content: str) -> str:
    path = folder / "negatives.yaml"
    path.write_text(content)
    return str(path)


@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from("ab 16:9,;\\'\".，：-"), min_size=1).filter(lambda text: text.strip()),
            st.sampled_from([1.0, 0.5, 2.0, -0.25, 1e-7, 10.0]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_written_phrases_are_read_as_they_were(pairs: list[tuple[str, float]]) -> None:
    phrases = tuple(Phrase(text.strip(), weight) for text, weight in pairs)
    assert parse_phrases(write_phrases(phrases)) == phrases


def test_one_set_for_all_prompts_is_that_of_custom(rotary: LanguageModel, tmp_path: Path) -> None:
    path = file(tmp_path, "phrases: [{phrase: sad, weight: 0.5}, {phrase: 'wet, cold', origin: [model]}]")
    custom = PhraseNegative(phrases="sad:0.5, wet\\, cold")
    assert FileNegative(path=path).branches(KNIGHT, rotary) == custom.branches(KNIGHT, rotary)
    assert FileNegative(path=path).phrases_for(KNIGHT) == "sad:0.5, wet\\, cold"


def test_a_set_for_each_prompt(rotary: LanguageModel, tmp_path: Path) -> None:
    path = file(tmp_path, "prompts: {knight: [{phrase: sad}], 7: 'wet, cold'}\nmode: separate")
    negative = FileNegative(path=path)
    assert [negative.phrases_for(Prompt(id=i, text="x")) for i in ("knight", "7")] == ["sad", "wet, cold"]
    assert len(negative.branches(Prompt(id="7", text="x"), rotary)) == 2
    assert len(FileNegative(path=path, mode="joined").branches(Prompt(id="7", text="x"), rotary)) == 1
    with pytest.raises(InputError, match="has no phrases for prompt 'queen'; it has phrases for knight, 7"):
        negative.branches(Prompt(id="queen", text="x"), rotary)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "must be a mapping with the key phrases or prompts"),
        ("[sad]", "must be a mapping"),
        ("phrases: [sad", "could not be read"),
        ("template: default", "must have one of the keys phrases"),
        ("phrases: sad\nprompts: {a: sad}", "must have one of the keys phrases"),
        ("phrases: sad\nphrases: wet", "the key 'phrases' occurs 2 times"),
        ("phrases: sad\nscale: 2", "unknown key 'scale'"),
        ("phrases: [{phrase: sad, wieght: 1}]", "phrases.0 has an unknown key 'wieght'"),
        ("phrases: [{weight: 1}]", "phrases.0 must have a text as phrase, got None"),
        (
            "phrases: [no]",
            "phrases.0 must have a text as phrase, got False; write words such as no in quotes",
        ),
        ("phrases: [{phrase: sad, weight: heavy}]", "weight must be a finite number, got 'heavy'"),
        ("phrases: [{phrase: sad, weight: .nan}]", "weight must be a finite number, got nan"),
        ("phrases: [{phrase: sad, weight: -1}]", "has a weight below 0"),
        ("phrases: []", "phrases must be a text such as"),
        ("phrases: 'sad,'", "empty phrase"),
        ("prompts: {}", "prompts must be a mapping from ids of prompts"),
        ("prompts: {knight: 7}", "prompts.knight must be a text such as"),
        ("phrases: sad\ntemplate: '{prompt}'", "negatives.template must be one of"),
        ("phrases: sad\nmode: alone", "negatives.mode must be joined or separate"),
    ],
)
def test_a_file_that_says_something_else_is_refused(content: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^negatives.path: .*{sentence}") as caught:
        FileNegative(path=file(tmp_path, content))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"negatives\.path is 'nowhere', which is not a file"):
        FileNegative(path="nowhere")


def test_a_changed_file_gives_new_cells_and_loses_no_old_ones(tmp_path: Path, tiny_folder: Path) -> None:
    """A comment and the evidence are no content. Texts of both contents stay in the folder."""

    def run(content: str) -> tuple[str, str]:
        file(tmp_path, content)
        overrides = [f"negatives.path={tmp_path / 'negatives.yaml'}", "negatives=file", "guidance.scale=3"]
        (row,) = sweep(*on(tmp_path, tiny_folder), *overrides)
        values: Any = row
        return str(values["cell"]), str(values["negatives.content"])

    first = run("phrases: sad")
    assert run("# found\nphrases: [{phrase: sad, origin: model}]\nevidence: {n: 3}") == first
    second = run("phrases: wet")
    assert second[0] != first[0]
    assert second[1] != first[1]
    cells = {path.stem for path in (tmp_path / "results/study/cells").glob("*.parquet")}
    assert cells == {first[0], second[0]}
