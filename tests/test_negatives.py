"""Reading negative prompts and putting them into contexts."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import cfg_lab.negatives
from cfg_lab import Branch, Prompt
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel, from_transformers
from cfg_lab.negatives import NamedNegative, PhraseNegative, parse_phrases
from tests.conftest import make_model, make_tokenizer

KNIGHT = Prompt(id="knight", text="Write {a} story.", negative="boring:0.8, cliche, predictable:0.5")


@pytest.fixture(scope="module")
def chat() -> LanguageModel:
    return from_transformers(make_model("rotary"), make_tokenizer(chat=True))


def parsed(text: str) -> list[tuple[str, float]]:
    return [(phrase.text, phrase.weight) for phrase in parse_phrases(text)]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("ugly:0.8, deformed:0.5, disfigured", [("ugly", 0.8), ("deformed", 0.5), ("disfigured", 1)]),
        (" low resolution ", [("low resolution", 1)]),
        ("丑陋：0.8，低分辨率、模糊:2", [("丑陋", 0.8), ("低分辨率", 1), ("模糊", 2)]),
        (r"a\, b\: c:2", [("a, b: c", 2)]),
        (r"back\\:0.5", [("back\\", 0.5)]),
        ("x:-0.5, y:+.25, z:1e-1", [("x", -0.5), ("y", 0.25), ("z", 0.1)]),
    ],
)
def test_phrases(text: str, phrases: list[tuple[str, float]]) -> None:
    assert parsed(text) == phrases


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one phrase"),
        ("   ", "at least one phrase"),
        ("ugly,,bad", "empty phrase at position 6"),
        ("ugly, :0.5", "empty phrase at position 6"),
        ("ugly:heavy", "weight 'heavy' at position 1"),
        ("fine, ugly:", "weight '' at position 6"),
        ("ugly:nan", "'nan'"),
        ("ugly:inf", "'inf'"),
        ("ugly:1e999", "too large"),
        ("ugly:0_1", "'0_1'"),
        ("ugly:٣", "is not a number"),
        ("a:1:2", r"more than one colon in 'a:1:2' at position 1"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_position(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_phrases(text)


@given(st.text())
@example("\\")
@example("a\\")
@example("，：")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        phrases = parse_phrases(text)
    except InputError:
        return
    assert phrases
    assert all(phrase.text == phrase.text.strip() and phrase.text for phrase in phrases)
    assert all(math.isfinite(phrase.weight) for phrase in phrases)


def escape(text: str) -> str:
    return "".join(f"\\{c}" if c in ",，、;；:：\\" else c for c in text)


@given(st.lists(st.tuples(st.text().filter(str.strip), st.floats(-100, 100)), min_size=1))
def test_what_is_written_is_read_back(phrases: list[tuple[str, float]]) -> None:
    text = ",".join(f"{escape(words)}:{weight:.6f}" for words, weight in phrases)
    assert parsed(text) == [(words.strip(), float(f"{weight:.6f}")) for words, weight in phrases]


def test_docstring() -> None:
    assert doctest.testmod(cfg_lab.negatives).failed == 0


def test_joined_is_one_branch_heaviest_first(chat: LanguageModel) -> None:
    expected = chat.encode("Write {a} story. It should be cliche, boring, predictable.")
    assert PhraseNegative().branches(KNIGHT, chat) == (Branch(expected, 1.0),)


def test_separate_is_one_branch_a_phrase_with_its_weight(chat: LanguageModel) -> None:
    branches = PhraseNegative(phrases="a:0.8, b:-0.5, c:0", mode="separate", template="bare").branches(
        KNIGHT, chat
    )
    assert branches == (Branch(chat.encode("a"), 0.8), Branch(chat.encode("b"), -0.5))


def test_a_template_of_ones_own_and_the_prompts_system_message(chat: LanguageModel) -> None:
    prompt = Prompt(id="1", text="Hi", system="Be rude")
    negative = PhraseNegative(phrases="x", template="Not {negative}: {prompt}")
    assert (
        chat.decode(negative.branches(prompt, chat)[0].ids)
        == "[system]Be rude[end][user]Not x: Hi[end][assistant]"
    )


def test_named_variants(chat: LanguageModel, rotary: LanguageModel) -> None:
    def ids(variant: str, model: LanguageModel, system: str | None = None) -> tuple[int, ...]:
        prompt = Prompt(id="1", text="Hi", system=system)
        (branch,) = NamedNegative(variant=variant).branches(prompt, model)
        return branch.ids

    assert chat.decode(ids("empty", chat)) == "[system]be kind[end][user][end][assistant]"
    assert ids("empty", rotary) == ids("bos", rotary) == ids("bos", chat) == (256,)
    assert ids("last_token", rotary) == rotary.encode("i")
    assert ids("default_system", chat, "Be rude") == chat.encode("Hi")
    with pytest.raises(InputError, match=r"does nothing for prompt '1'.*set prompts\.system"):
        ids("default_system", chat)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "both"}, r"negatives\.mode must be joined or separate, got 'both'"),
        ({"template": "{prompt} bad"}, r"negatives\.template must be one of default, bare"),
        ({"phrases": "ugly:x"}, r"negatives\.phrases: weight 'x' at position 1"),
        ({"phrases": "ugly:0"}, "all weights are 0"),
        ({"phrases": "ugly, fine:-1"}, r"'fine' has a weight below 0.*mode=separate"),
    ],
)
def test_bad_settings_are_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PhraseNegative(**values)


def test_own_without_a_negative_names_the_prompt(chat: LanguageModel) -> None:
    with pytest.raises(InputError, match="prompt '7' has no negative of its own"):
        PhraseNegative().branches(Prompt(id="7", text="Hi"), chat)
