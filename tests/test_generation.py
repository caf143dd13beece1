"""Generating one text: a str with its tokens and trace."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from cfg_lab import BeamSearch, Completion, Decoder, Generated, Greedy, Request, generate, load_model
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance, UnionGuidance
from cfg_lab.models import LanguageModel
from cfg_lab.study.cell import Cell
from cfg_lab.study.notebook_html import completion_html
from tests.test_report import outline


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> LanguageModel:
    return load_model(str(tiny_folder))


@pytest.fixture(scope="module")
def text(model: LanguageModel) -> Generated:
    return generate(model, "Hi", negative="boring", scale=2, max_new_tokens=8, top=3)


def test_generate_is_as_short_as_the_article(model: LanguageModel) -> None:
    text = generate(model, "Hi", negative="boring:0.8, cliche", scale=1.5, max_new_tokens=8)
    assert text == generate(model, "Hi", negative="cliche, boring:0.1", scale=1.5, max_new_tokens=8)
    assert text != generate(model, "Hi", negative="boring", scale=3, max_new_tokens=8)
    assert generate(model, "Hi", scale=1) == generate(model, "Hi", negative="boring", scale=1)
    assert generate(model, "Hi") == generate(model, "Hi", scale=1.5)
    with pytest.raises(InputError, match="prompt must not be empty"):
        generate(model, " ")


def test_a_text_is_a_str_and_what_is_derived_from_it_a_plain_one(
    text: Generated, model: LanguageModel
) -> None:
    plain = model.decode(text.completion.tokens)
    assert isinstance(text, str)
    assert text == plain
    assert hash(text) == hash(plain)
    assert {plain: 1}[text] == 1
    assert f"{text}" == plain
    for derived in (text[1:], text.upper(), text + "", str(text), text.strip()):
        assert type(derived) is str


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda text: pickle.loads(pickle.dumps(text))])
def test_copies_have_the_same_tokens_and_trace(text: Generated, again: object) -> None:
    other = again(text)  # pyright: ignore[reportCallIssue]
    assert type(other) is Generated
    assert other == text
    assert other.pieces == text.pieces
    assert other.completion.tokens == text.completion.tokens
    assert other._repr_html_() == text._repr_html_()


def test_each_token_has_a_piece_and_what_else_was_likely(text: Generated, model: LanguageModel) -> None:
    tokens, trace = text.completion.tokens, text.completion.trace
    assert text.pieces == tuple(map(model.piece, tokens))
    assert set(text.alternatives) == {"guided", "positive", "negative"}
    for steps in text.alternatives.values():
        assert [len(step) for step in steps] == [3] * len(tokens)
    for step, numbers in zip(text.alternatives["guided"], trace.alternatives, strict=True):
        assert [token["piece"] for token in step] == [model.piece(token) for token, _ in numbers.guided]
        log_probs = [token["log_prob"] for token in step]
        assert log_probs == sorted(log_probs, reverse=True)


def test_storing_alternatives_changes_no_text(text: Generated, model: LanguageModel) -> None:
    bare = generate(model, "Hi", negative="boring", scale=2, max_new_tokens=8, top=0)
    assert bare == text
    assert not any(bare.alternatives.values())
    with pytest.raises(InputError, match="top must be at least 0"):
        generate(model, "Hi", top=-1)


def test_a_notebook_shows_every_token(text: Generated, model: LanguageModel) -> None:
    html = text._repr_html_()
    outline(html)
    assert html.count('role="tooltip"') == len(text.pieces)
    for branch in ("guided", "positive", "negative"):
        assert len(re.findall(rf"\n{branch} [−\d].*likeliest: .* %", html)) == len(text.pieces)
    unguided = generate(model, "Hi", scale=1, max_new_tokens=8)
    assert "background:rgba" not in unguided._repr_html_().split("</style>")[1]
    assert "\nnegative" not in unguided._repr_html_()


def test_a_raw_completion_is_shown_by_its_token_ids(text: Generated) -> None:
    html = completion_html(text.completion)
    outline(html)
    for token in text.completion.tokens:
        assert f">{token} <" in html
    best = text.completion.trace.alternatives[0].guided[0][0]
    assert re.search(rf"guided [−\d].*likeliest: {best} ", html)


def test_the_columns_of_a_trace_are_as_long_as_the_text(text: Generated) -> None:
    columns = text.completion.trace.columns
    assert list(columns) == ["guided", "positive", "negative", "entropy", "divergence", "scale"]
    assert {len(values) for values in columns.values()} == {len(text.pieces)}
    assert columns["scale"] == (2.0,) * len(text.pieces)
    assert not any(map(math.isnan, columns["negative"]))


def test_any_rule_guides(model: LanguageModel) -> None:
    def by(**how: object) -> Generated:
        return generate(model, "Hi", negative="boring", max_new_tokens=8, **how)  # pyright: ignore

    assert by(guidance=ClassifierFreeGuidance(scale=2)) == by(scale=2)
    assert by(guidance=UnionGuidance(scale=1)) == by(scale=1)
    union = by(guidance=UnionGuidance(scale=6), sampling=Greedy())
    assert union != by(scale=6, sampling=Greedy())
    request = union.completion.request
    (alone,) = Decoder(model).decode([request])
    assert alone.tokens == union.completion.tokens
    assert request.guidance == UnionGuidance(scale=6)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"guidance": UnionGuidance(), "scale": 2}, r"scale is 2 .* guidance=UnionGuidance\(scale=2, …\)"),
        ({"guidance": UnionGuidance(), "scale": 1.5}, "leave scale out"),
        ({"guidance": UnionGuidance}, "guidance must be a rule"),
        ({"guidance": "union"}, "guidance must be a rule, such as .* got 'union'"),
        ({"scale": math.nan}, "guidance.scale must be a finite number"),
    ],
)
def test_a_rule_has_its_own_scale(how: dict[str, object], message: str, model: LanguageModel) -> None:
    with pytest.raises(InputError, match=message):
        generate(model, "Hi", negative="boring", **how)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(1.5), np.int64(2), np.float64(1)])
def test_a_scale_of_numpy_is_the_plain_number(number: np.float64, model: LanguageModel) -> None:
    texts = [
        generate(model, "Hi", negative="boring", scale=scale, max_new_tokens=8)
        for scale in (number, number.item())
    ]
    assert len(set(texts)) == 1
    assert len({text.completion.request.id(model.fingerprint) for text in texts}) == 1
    assert repr(UnionGuidance(scale=number)) == repr(UnionGuidance(scale=number.item()))


@pytest.mark.parametrize("wrong", [np.bool_(True), np.float64("nan"), np.datetime64("2024")])
def test_not_everything_of_numpy_is_a_scale(wrong: object, model: LanguageModel) -> None:
    with pytest.raises(InputError, match=r"guidance\.scale must be a finite number"):
        generate(model, "Hi", scale=wrong)  # pyright: ignore[reportArgumentType]


def test_the_next_best_texts_of_a_beam(model: LanguageModel) -> None:
    best = generate(
        model, "Hi", negative="dull", sampling=BeamSearch(width=4, n_best=3), max_new_tokens=6, scale=2
    )
    assert len(best.others) == 2
    assert len({best, *best.others}) == 3
    for other in best.others:
        assert type(other) is Generated
        assert other == model.decode(other.completion.tokens)
        outline(other._repr_html_())
    completions = [text.completion for text in (best, *best.others)]
    scores = [sum(completion.trace.guided) / len(completion.tokens) for completion in completions]
    assert scores == sorted(scores, reverse=True)


def test_a_completion_of_a_model_without_tokenizer_is_shown(model: LanguageModel) -> None:
    (completion,) = Decoder(model).decode([Request(positive=(1, 2), max_new_tokens=3)])
    assert isinstance(completion, Completion)
    html = completion_html(completion)
    outline(html)
    assert html.count('role="tooltip"') == len(completion.tokens) == 3


def test_the_defaults_are_those_of_a_cell() -> None:
    parameters = inspect.signature(generate).parameters
    defaults = {field.name: field.default for field in fields(Cell)}
    for name in ("max_new_tokens", "seed", "top"):
        assert parameters[name].default == defaults[name]
