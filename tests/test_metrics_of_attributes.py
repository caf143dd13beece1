"""Metrics of what a text is like and how close it is to a reference give values worked out by hand."""

from __future__ import annotations

import math

import pytest

from cfg_lab import Prompt
from cfg_lab.errors import InputError
from cfg_lab.metrics import (
    Answer,
    Formality,
    Language,
    Leakage,
    Readability,
    Relevance,
    Rouge,
    Topic,
    Translation,
    packaged_cards,
)
from cfg_lab.metrics.formality import formality_features
from cfg_lab.metrics.readability import syllables
from cfg_lab.negatives import parse_phrases
from tests.texts import FakeEmbedder, answer, text


def test_language_of_the_prompt_or_a_named_one() -> None:
    german = Prompt(id="1", text="Beschreibe bitte das Wetter von heute und wie es die Menschen stimmt.")
    texts = [
        text("Heute scheint die Sonne, und alle sind gut gelaunt.", prompt=german),
        text("Today the sun is shining and everyone is happy.", prompt=german),
        text(" ", prompt=german),
    ]
    scores = Language().score(texts)["language"]
    assert scores[0] > 0.9
    assert scores[1] < 0.1
    assert math.isnan(scores[2])
    assert Language(language="en").score(texts)["language"][1] > 0.9
    with pytest.raises(
        InputError, match=r"metrics\.language\.language must be one of .*, de, .* got 'german'"
    ):
        Language(language="german").score([])


def test_topics_are_a_softmax_over_cosines() -> None:
    embedder = FakeEmbedder({"war": [1, 0], "peace": [0, 1], "battle": [0.8, 0.6]})
    metric = Topic(topics=[{"w": "war"}, {"p": "peace"}], embedder=lambda: embedder, temperature=0.1)
    scores = metric.score([text("battle"), text("")])
    assert list(scores) == ["topic_w", "topic_p"]
    assert scores["topic_w"][0] == pytest.approx(1 / (1 + math.exp(-2)))  # (0.8 - 0.6) / 0.1
    assert scores["topic_w"][0] + scores["topic_p"][0] == pytest.approx(1)
    assert math.isnan(scores["topic_w"][1])
    with pytest.raises(InputError, match="at least 2 topics"):
        Topic(topics=[{"w": "war"}], embedder=lambda: embedder)
    with pytest.raises(InputError, match=r"temperature must be above 0, got 0"):
        Topic(topics=[{"w": "war"}, {"p": "peace"}], embedder=lambda: embedder, temperature=0)


def test_leakage_weighs_the_phrases() -> None:
    embedder = FakeEmbedder({"It is sad.": [1, 0], "It is bleak.": [0, 1], "tears": [0.6, 0.8]})
    metric = Leakage(embedder=lambda: embedder, phrases=parse_phrases)

    def leakage(words: str, negative: str | None) -> float:
        return metric.score([text(words, prompt=Prompt(id="1", text="?", negative=negative))])["leakage"][0]

    assert leakage("tears", "sad") == pytest.approx(0.6)
    assert leakage("tears", "sad:3, bleak") == pytest.approx((3 * 0.6 + 0.8) / 4)
    assert leakage("tears", "sad, bleak:-1") == pytest.approx((0.6 - 0.8) / 2)  # a negative weight attracts
    assert math.isnan(leakage("tears", None))
    assert math.isnan(leakage(" ", "sad"))
    with pytest.raises(InputError, match=r"template must have {} in it, got 'bad'"):
        Leakage(embedder=lambda: embedder, phrases=parse_phrases, template="bad")


def test_relevance_is_the_cosine_of_text_and_prompt() -> None:
    embedder = FakeEmbedder({"ask": [0, 1], "near": [0.6, 0.8]})
    prompt = Prompt(id="1", text="ask")
    metric = Relevance(embedder=lambda: embedder)
    scores = metric.score([text("near", prompt=prompt), text("", prompt=prompt)])
    assert scores["relevance"][0] == pytest.approx(0.8)
    assert math.isnan(scores["relevance"][1])


def test_syllables() -> None:
    by_word = {
        "the": 1, "cat": 1, "table": 2, "makes": 1, "boxes": 2, "wanted": 2, "walked": 1, "reader": 2,
        "banana": 3, "ages": 2, "queue": 1, "don't": 1, "hmm": 1, "12": 1,
    }  # fmt: skip
    assert {word: syllables(word) for word in by_word} == by_word


def test_readability_by_hand() -> None:
    # The first has 6 words of one syllable in one sentence. The second has 10 words ("3" and "5" are two),
    # 11 syllables and two sentences.
    texts = ["The cat sat on the mat.", "Is 3.5 a lot? A happy dog ran off", ""]
    scores = Readability().score([text(words) for words in texts])
    assert scores["reading_ease"][0] == pytest.approx(206.835 - 1.015 * 6 - 84.6)
    assert scores["reading_grade"][0] == pytest.approx(0.39 * 6 + 11.8 - 15.59)
    assert scores["reading_ease"][1] == pytest.approx(206.835 - 1.015 * 5 - 84.6 * 11 / 10)
    assert math.isnan(scores["reading_ease"][2])


def test_contractions() -> None:
    contractions = "don't ain't I'm we’ll fog'll should've he'd it's let's y'all gonna KINDA"
    others = "do not am river's bus' o'clock cannot ill were shed want kind its lets 'em"
    assert [word for word in contractions.split() if formality_features(word)[1] != 1] == []
    assert [word for word in others.split() if formality_features(word)[1] != 0] == []


def test_formality_by_hand() -> None:
    # The first has 3 letters per word. The second has 4, not counting apostrophes, and 2 contractions.
    texts = ["The cat sat.", "It's gonna rain", "", "?!"]
    metric = Formality(letters=2, contractions=-30, bias=-5)
    scores = metric.score([text(words) for words in texts])
    assert scores["formality"][0] == pytest.approx(1 / (1 + math.exp(-(2 * 3 - 5))))
    assert scores["formality"][1] == pytest.approx(1 / (1 + math.exp(-(2 * 4 - 30 * 2 / 3 - 5))))
    assert all(math.isnan(score) for score in scores["formality"][2:])


def test_of_two_texts_that_say_the_same_the_formal_one_scores_higher() -> None:
    formal, casual, twice = Formality().score(
        [
            text("I would appreciate your assistance regarding this matter."),
            text("I'd love it if you'd help me out with this, kinda lost!"),
            text("I would appreciate your assistance regarding this matter. " * 2),
        ]
    )["formality"]
    assert formal > 0.5 > casual
    assert twice == pytest.approx(formal)  # the length of a text does not matter


def test_answers_as_squad_counts_them() -> None:
    scores = Answer().score(
        [
            answer("The Eiffel  Tower!", "eiffel tower"),
            answer("the big tower", "Eiffel Tower"),
            answer("", "x"),
            answer("!", "the"),
            answer("x"),
        ]
    )
    assert scores["exact_match"][:4] == [1, 0, 0, 1]
    assert scores["token_f1"][:4] == pytest.approx([1, 1 / 2, 0, 1])  # precision and recall are 1/2
    assert math.isnan(scores["exact_match"][4])
    assert math.isnan(scores["token_f1"][4])


def test_rouge_by_hand() -> None:
    scores = Rouge().score([answer("the cats sat", "the cat sat down"), answer("", "x"), answer("x")])
    assert scores["rouge_1"][:2] == pytest.approx(
        [2 * 1 * 0.75 / 1.75, 0]
    )  # precision 3/3, recall 3/4 of the stems
    assert scores["rouge_2"][0] == pytest.approx(2 * 1 * (2 / 3) / (5 / 3))
    assert scores["rouge_l"][0] == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert math.isnan(scores["rouge_1"][2])


def test_bleu_and_chrf_by_hand() -> None:
    scores = Translation().score(
        [answer("a b c d", "a b c d"), answer("a b c", "a b c d"), answer("", "x"), answer("x")]
    )
    # All n-grams up to 3 match. The brevity penalty is exp(1 - 4/3).
    assert scores["bleu"][:3] == pytest.approx([1, math.exp(1 - 4 / 3), 0])
    assert scores["chrf"][0] == pytest.approx(1)
    # For "abc" and "abcd", n-grams of letters have precision 1 and recall 3/4, 2/3 and 1/2 for n = 1, 2, 3.
    # chrF takes the mean over these n.
    recall = (3 / 4 + 2 / 3 + 1 / 2) / 3
    assert scores["chrf"][1] == pytest.approx(5 * recall / (4 + recall), abs=1e-3)
    assert math.isnan(scores["chrf"][3])


def test_every_metric_that_judges_has_a_card_and_a_metric_that_counts_has_none() -> None:
    judging = ["sentiment", "toxicity", "language", "topic_medicine", "leakage", "relevance", "formality"]
    cards = packaged_cards(["length", *judging, "perplexity"])
    assert list(cards) == judging
    for column, card in cards.items():
        assert set(card) == {"what", "data", "held_out"}, column
        assert card["what"]
        assert card["data"]
        assert card["held_out"], column
        for measured in card["held_out"].values():
            value = measured.get("accuracy", measured.get("auc"))
            assert 0 <= measured["low"] <= value <= measured["high"] <= 1
            assert measured["n"] >= 50
