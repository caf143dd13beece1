"""Prompt sets inside packages, as they are fetched, and the copying of texts from their prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfg_lab import Prompt
from cfg_lab.errors import InputError
from cfg_lab.metrics import Copying
from cfg_lab.metrics.copying import fragment_lengths
from cfg_lab.prompts import human_eval, parse_phrases, real_toxicity, xsum
from cfg_lab.prompts.template import fill_template
from tests.texts import text

SETS: dict[Callable[..., list[Prompt]], int] = {real_toxicity: 623, human_eval: 164, xsum: 999}


@pytest.mark.parametrize("prompt_set", SETS)
def test_the_sets_are_whole_and_have_no_prompt_twice(prompt_set: Callable[..., list[Prompt]]) -> None:
    prompts = prompt_set()
    assert len(prompts) == len({prompt.id for prompt in prompts}) == SETS[prompt_set]
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    assert all(prompt.text.strip() for prompt in prompts)
    assert prompt_set(limit=5) == prompts[:5]


def test_a_limit_takes_about_as_many_prompts_of_each_category() -> None:
    for limit in (70, 168, 350):
        numbers = Counter(prompt.id.partition("/")[0] for prompt in real_toxicity(limit=limit))
        assert len(numbers) == 7
        assert max(numbers.values()) - min(numbers.values()) <= 5


def test_summaries_and_solutions_are_references() -> None:
    assert all(len(prompt.references) == 1 and prompt.references[0].strip() for prompt in xsum())
    assert all(prompt.references[0][0].isspace() for prompt in human_eval())
    assert not any(prompt.references for prompt in real_toxicity())


@pytest.mark.parametrize("longest", [25, 100, 300])
def test_longer_articles_are_left_out(longest: int) -> None:
    lengths = [len(prompt.text.split()) for prompt in xsum(template="{document}", longest=longest)]
    assert max(lengths) <= longest
    assert len(lengths) == sum(len(prompt.text.split()) <= longest for prompt in xsum(template="{document}"))


def test_every_prompt_has_the_negative_that_is_set() -> None:
    phrases = [phrase.text for phrase in parse_phrases(real_toxicity(limit=1)[0].negative or "")]
    assert phrases == ["toxic", "insulting", "threatening", "sexually explicit", "profane"]
    assert {prompt.negative for prompt in xsum(negative=["a, b", "c"], limit=3)} == {r"a\, b, c"}
    assert {prompt.negative for prompt in human_eval(negative=None, limit=3)} == {None}
    assert all(make(limit=1)[0].negative for make in SETS)  # so that negatives=own runs


@pytest.mark.parametrize(
    ("prompt_set", "arguments", "message"),
    [
        (real_toxicity, {"template": "x"}, r"prompts\.template must be a text with {prompt} in it, got 'x'"),
        (human_eval, {"template": 7}, r"prompts\.template must be a text with {prompt} in it, got 7"),
        (xsum, {"template": "{prompt}"}, r"prompts\.template must be a text with {document} in it"),
        (xsum, {"longest": 0}, r"prompts\.longest must be a whole number of words .*, got 0"),
        (xsum, {"longest": 2}, r"prompts\.longest is 2, but the shortest article has \d+ words"),
        (xsum, {"limit": 0}, r"prompts\.limit must be .*, got 0"),
    ],
)
def test_wrong_arguments_are_named(prompt_set: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prompt_set(**arguments)


def test_a_command_line_can_write_a_line_break_into_a_template() -> None:
    (prompt,) = real_toxicity(template=r"Continue:\n\n{prompt}", limit=1)
    assert prompt.text.startswith("Continue:\n\n")
    assert fill_template(r"\n{a}", {"a": r"\n"}) == "\n\\n"  # what is filled in stays as it is


WORDS = st.lists(st.sampled_from("abc"), max_size=8)


@given(WORDS, WORDS)
def test_fragments_are_the_longest_copies(written: list[str], source: list[str]) -> None:
    """Each fragment is in the source, no longer one is, and every word of the source is in a fragment."""
    lengths = fragment_lengths(written, source)
    assert sum(lengths) == sum(word in source for word in written)
    joined = " ".join(source)
    start = 0
    for length in lengths:
        while written[start] not in source:
            start += 1
        assert " ".join(written[start : start + length]) in joined
        assert " ".join(written[start : start + length + 1]) not in joined or start + length == len(written)
        start += length


def scores(written: str, source: str) -> dict[str, float]:
    (row,) = zip(*Copying().score([text(written, prompt=Prompt(id="1", text=source))]).values(), strict=True)
    return dict(zip(Copying().columns, row, strict=True))


def test_a_copy_and_a_text_of_other_words() -> None:
    source = "On Monday the mayor of Leeds met 40 teachers."
    assert scores(source, source) == {"copied": 1, "copied_span": 9, "novel_2": 0, "unsupported": 0}
    other = scores("Some people in Paris and 12 dogs", source)
    assert other == {"copied": 0, "copied_span": 0, "novel_2": 1, "unsupported": 1}
    half = scores("Yesterday the mayor of Leeds, Ann Field, met 41 teachers", source)
    assert half["unsupported"] == pytest.approx(3 / 4)  # Leeds is in the source; Ann, Field and 41 are not
    assert half["copied"] == pytest.approx(6 / 10)
