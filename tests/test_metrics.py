"""Metrics give what their docstrings say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from cfg_lab import Prompt
from cfg_lab.errors import InputError
from cfg_lab.metrics import (
    Classifier,
    Cost,
    Diversity,
    EvaluateModule,
    Length,
    Perplexity,
    Sentiment,
    Toxicity,
)
from cfg_lab.metrics.sentiment import HEAD
from cfg_lab.models import load_classifier, load_embedder
from cfg_lab.models.embedder import Embedder
from cfg_lab.models.packaged import packaged_embedder
from tests.conftest import VOCABULARY, make_tokenizer
from tests.texts import text


def test_perplexity_counts_the_text_and_not_the_stop_token() -> None:
    stopped = text("aé b", tokens=(5, 6, 2), log_probs=(-math.log(2), -math.log(8)))
    scores = Perplexity().score([stopped, text("")])
    assert scores["perplexity"][0] == pytest.approx(4)  # geometric mean of 2 and 8
    assert scores["bits_per_byte"][0] == pytest.approx(4 / 5)  # 1 + 3 bits over 5 bytes of UTF-8
    assert math.isnan(scores["perplexity"][1])
    assert math.isnan(scores["bits_per_byte"][1])


def test_diversity_by_hand() -> None:
    scores = Diversity().score([text("The cat, the CAT. The dog!"), text("so " * 10), text("one two")])
    assert scores["distinct_1"] == pytest.approx([3 / 6, 1 / 10, 1])
    assert scores["distinct_2"] == pytest.approx([3 / 5, 1 / 9, 1])
    assert scores["repeated_4"][:2] == pytest.approx([0, 6 / 7])
    assert math.isnan(scores["repeated_4"][2])


def test_length_and_degenerate_texts_are_counted() -> None:
    texts = [
        text("one two"),
        text(" "),
        text("so so so", tokens=(4, 4, 4)),
        text("x", finish_reason="length"),
    ]
    scores = Length().score(texts)
    assert scores["length"] == [2, 0, 3, 1]
    assert scores["words"] == [2, 0, 3, 1]
    assert scores["stopped"] == [1, 1, 1, 0]
    assert scores["degenerate"] == [0, 1, 1, 0]


def test_cost_counts_what_the_models_read() -> None:
    full = text("a b", tokens_read=(10, 20), tokens_read_in_full=(10, 20), parameters=(5_000_000, 2_000_000))
    two_beams = {"tokens_read": (20, 15, 5), "tokens_read_in_full": (20, 20, 20), "parameters": (1, 1, 1)}
    half = text("a b", **two_beams)
    plain = text("a b", tokens_read=(10,), tokens_read_in_full=(10,), parameters=(1,))
    scores = Cost().score([full, half, plain])
    assert scores["forward_tokens"] == [30, 40, 10]
    assert scores["gflop"][0] == pytest.approx(2 * (10 * 5e6 + 20 * 2e6) / 1e9)
    assert scores["negatives_saved"][:2] == [0, 0.5]
    assert math.isnan(scores["negatives_saved"][2])


def test_sentiment_and_its_card() -> None:
    metric = Sentiment(embedder=load_embedder)
    good, bad, empty = metric.score(
        [text("A wonderful, happy day."), text("A terrible, sad waste."), text("")]
    )["sentiment"]
    assert good > 0.9
    assert bad < 0.1
    assert math.isnan(empty)
    card = json.loads(HEAD.read_text())
    assert card["held_out"]["all"]["accuracy"] > 0.8 > card["majority_class"]
    assert card["held_out"]["all"]["n"] > 3000


def test_sentiment_does_not_depend_on_the_batch() -> None:
    sentences = [f"{word} day" * length for length in (1, 9, 3) for word in ("good ", "bad ", "long ")]
    folder = packaged_embedder()
    texts = [text(sentence) for sentence in sentences]
    one_batch = Sentiment(embedder=lambda: Embedder(folder)).score(texts)["sentiment"]
    embedder = Embedder(folder)  # a second one, because an embedder remembers what it has embedded
    metric = Sentiment(embedder=lambda: embedder)
    single = [metric.score([sentence])["sentiment"][0] for sentence in texts]
    assert one_batch == pytest.approx(single, abs=1e-5)


def test_toxicity() -> None:
    scores = Toxicity().score([text("You are a fucking idiot"), text("Have a nice day"), text(" ")])[
        "toxicity"
    ]
    assert scores[0] > 0.9
    assert scores[1] < 0.2
    assert math.isnan(scores[2])


def test_an_evaluate_module_by_path(tmp_path: Path) -> None:
    path = tmp_path / "shout.py"
    path.write_text(
        "import datasets\nimport evaluate\n"
        "class Shout(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        features = datasets.Features({'predictions': datasets.Value('string'),"
        " 'references': datasets.Value('string')})\n"
        "        return evaluate.MetricInfo(description='', citation='', features=features)\n"
        "    def _compute(self, predictions, references, mark='!'):\n"
        "        return {'shout': sum(p.count(mark) for p in predictions) / len(predictions[0])}\n"
    )
    with_reference = Prompt(id="1", text="?", references=("x",))
    metric = EvaluateModule(module=str(path), column="shout")
    scores = metric.score(
        [text("no!!", prompt=with_reference), text("quiet", prompt=with_reference), text("unscored!")]
    )
    assert scores["shout"][:2] == [0.5, 0]
    assert math.isnan(scores["shout"][2])
    with_argument = EvaluateModule(module=str(path), column="shout", arguments={"mark": "n"})
    assert with_argument.score([text("no!!", prompt=with_reference)])["shout"] == [0.25]
    with pytest.raises(InputError, match=r"column is 'loud', but .* computes shout"):
        EvaluateModule(module=str(path), column="loud").score([text("a", prompt=with_reference)])


def test_a_missing_module_or_classifier_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"metrics\.evaluate\.module is 'no_such_metric'"):
        EvaluateModule(module="no_such_metric", column="x").score([])
    with pytest.raises(InputError, match="is 'no/such-model', which is neither a folder with a cl"):
        Classifier(model="no/such-model", label="good", loader=load_classifier).score([])


def test_a_classifier_by_folder(tmp_path: Path) -> None:
    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        hidden_dim=64,
        n_heads=4,
        n_layers=1,
        id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
    )
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path)
    texts = [text("hello there"), text("")]

    def scores(label: str) -> list[float]:
        metric = Classifier(model=str(tmp_path), label=label, loader=load_classifier)
        return metric.score(texts)["classifier"]

    good, bad = scores("good"), scores("bad")
    assert good[0] + bad[0] == pytest.approx(1, abs=1e-5)
    assert math.isnan(good[1])
    with pytest.raises(InputError, match=r"label is 'fine', but classifier .* has the labels bad, good"):
        scores("fine")
