"""Trains the classifier of the sentiment metric, and writes cfg_lab/metrics/sentiment_head.json.

Run `python experiments/sentiment_head/train.py`. It fetches the ratings (vaderSentiment 0.5, MIT), embeds
the texts, fits a logistic regression and writes it with its held-out accuracy. It takes about five minutes
on two cores. Raise `Sentiment.version` afterwards.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit

from cfg_lab.metrics.sentiment import HEAD
from cfg_lab.models import load_embedder
from cfg_lab.packages import Package, fetch

RATINGS = Package(
    requirement="vaderSentiment==0.5",
    sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    size="2 MB",
    wheel=False,
)
DOMAINS = {
    "movies": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "newspaper": "nytEditorialSnippets",
    "tweets": "tweets",
}
NEUTRAL = 0.5
"""Texts rated nearer to 0 than this, on a scale from -4 to 4, count as neutral and are left out."""


def ratings() -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """The rated texts that are not neutral.

    Returns:
        Texts; arrays [texts] of whether the rating is positive, of the domain, and of the group. Sentences of
        one review or article are one group, so that they are not split between training and held-out texts.
    """
    texts: list[str] = []
    rows: list[tuple[bool, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        unpacked = fetch(RATINGS, Path(folder))
        (archive,) = unpacked.rglob("hutto_ICWSM_2014.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        for domain, stem in DOMAINS.items():
            (file,) = Path(folder).rglob(f"{stem}_GroundTruth.txt")
            for line in file.read_text(encoding="latin-1").splitlines():
                identity, rating, text = line.split("\t", 2)
                if abs(float(rating)) >= NEUTRAL:
                    texts.append(text)
                    rows.append((float(rating) > 0, domain, f"{domain}-{identity.split('_')[0]}"))
    positive, domains, groups = (np.array(column) for column in zip(*rows, strict=True))
    return texts, positive, domains, groups


def accuracy(right: np.ndarray) -> dict[str, float]:
    """Share of right answers with its 95 % Wilson interval."""
    n, p, z = len(right), float(right.mean()), 1.96
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return {"accuracy": round(p, 4), "low": round(float(low), 4), "high": round(float(high), 4), "n": n}


def main() -> None:
    """Train, write the weights with their held-out accuracy, and print the accuracy."""
    texts, positive, domains, groups = ratings()
    embeddings = load_embedder()(texts)
    train, test = next(
        GroupShuffleSplit(1, test_size=0.2, random_state=0).split(embeddings, positive, groups)
    )
    model = LogisticRegression(C=10.0, max_iter=2000).fit(embeddings[train], positive[train])
    probability = model.predict_proba(embeddings[test])[:, 1]
    is_right = (probability > 0.5) == positive[test]
    held_out = {
        "all": {**accuracy(is_right), "auc": round(float(roc_auc_score(positive[test], probability)), 4)}
    }
    for domain in DOMAINS:
        held_out[domain] = accuracy(is_right[domains[test] == domain])
    majority = max(positive[test].mean(), 1 - positive[test].mean())
    head = {
        "what": "logistic regression on all-MiniLM-L6-v2 embeddings; probability of positive sentiment",
        "data": f"{RATINGS.requirement}, mean human ratings, |rating| >= {NEUTRAL}; MIT",
        "trained": {"n": len(train), "date": str(date.today())},
        "held_out": held_out,
        "majority_class": round(float(majority), 4),
        "bias": float(model.intercept_[0]),
        "weights": [round(float(weight), 6) for weight in model.coef_[0]],
    }
    HEAD.write_text(json.dumps(head) + "\n")
    print(json.dumps({key: value for key, value in head.items() if key != "weights"}, indent=1))


if __name__ == "__main__":
    main()
