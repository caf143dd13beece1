"""A metric describes its columns, and the description reaches whoever reads the results."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import cfg_lab
from cfg_lab import analysis
from cfg_lab.errors import InputError, StoreError
from cfg_lab.metrics import (
    Classifier,
    ColumnInfo,
    EvaluateModule,
    Evaluator,
    Length,
    Sentiment,
    Text,
    Topic,
    columns_of,
    known_columns,
    scorer_key,
)
from cfg_lab.metrics.known_columns import column_info, packaged_columns
from cfg_lab.report.cards import meaning_html
from cfg_lab.report.roles import Roles, roles_of
from cfg_lab.score import run
from cfg_lab.study.scoring import main_columns, prepare_metrics
from tests.cli import environment, on, sweep
from tests.options import METRICS, OFFLINE
from tests.texts import FakeEmbedder, text

INFINITY = math.inf
SHARE, COSINE = (0, 1), (-1, 1)
FROM_0, FROM_1, UP_TO_0, ANY = (0, INFINITY), (1, INFINITY), (-INFINITY, 0), (-INFINITY, INFINITY)

COLUMNS: dict[str, tuple[str | None, tuple[float, float], str, int]] = {
    "perplexity": ("lower", FROM_1, "fluency", 0),
    "bits_per_byte": ("lower", FROM_0, "fluency", 1),
    "evaluator_perplexity": ("lower", FROM_1, "fluency", 2),
    "evaluator_bits_per_byte": ("lower", FROM_0, "fluency", 2),
    "distinct_1": ("higher", SHARE, "diversity", 0),
    "distinct_2": ("higher", SHARE, "diversity", 0),
    "distinct_3": ("higher", SHARE, "diversity", 0),
    "self_bleu": ("lower", SHARE, "diversity", 1),
    "self_bleu_across": ("lower", SHARE, "diversity", 1),
    "vendi": ("higher", FROM_1, "diversity", 2),
    "vendi_across": ("higher", FROM_1, "diversity", 2),
    "mauve": ("higher", SHARE, "diversity", 3),
    "toxicity": ("lower", SHARE, "toxicity", 0),
    "relevance": ("higher", COSINE, "relevance", 0),
    "sentiment": ("higher", SHARE, "aim", 0),
    "leakage": ("lower", COSINE, "aim", 1),
    "leakage_verbatim": ("lower", COSINE, "other", 0),
    "exact_match": ("higher", SHARE, "aim", 0),
    "token_f1": ("higher", SHARE, "aim", 0),
    "rouge_1": ("higher", SHARE, "aim", 0),
    "rouge_2": ("higher", SHARE, "aim", 0),
    "rouge_l": ("higher", SHARE, "aim", 0),
    "bleu": ("higher", SHARE, "aim", 0),
    "chrf": ("higher", SHARE, "aim", 0),
    "guided_log_prob": (None, UP_TO_0, "aim", 0),
    "formality": (None, SHARE, "aim", 0),
    "topic_medicine": (None, SHARE, "aim", 0),
    "reading_ease": (None, ANY, "aim", 0),
    "reading_grade": (None, ANY, "aim", 0),
    "forward_tokens": (None, FROM_0, "aim", 0),
    "gflop": (None, FROM_0, "aim", 0),
    "negatives_saved": (None, SHARE, "aim", 0),
    "language": ("higher", SHARE, "other", 0),
    "repeated_2": ("lower", SHARE, "other", 0),
    "repeated_3": ("lower", SHARE, "other", 0),
    "repeated_4": ("lower", SHARE, "other", 0),
    "longest_repeat": ("lower", SHARE, "other", 0),
    "compression": ("lower", FROM_0, "other", 0),
    "length": (None, FROM_0, "other", 0),
    "words": (None, FROM_0, "other", 0),
    "stopped": (None, SHARE, "other", 0),
    "degenerate": ("lower", SHARE, "other", 0),
}
"""By column: better, bounds, role, rank. Without a direction, the role has no effect.

A new metric tests its columns in its own test.
"""

DEFAULTS: dict[str, tuple[int, dict[str, Any]]] = {
    "Classifier": (1, {"column": "classifier", "better": None}),
    "EvaluateModule": (2, {"arguments": None, "better": None}),
    "Evaluator": (2, {"separator": "\n", "column": "evaluator"}),
    "Formality": (2, {"letters": 1.96, "contractions": -35.1, "bias": -9.02}),
    "Language": (1, {"language": None}),
    "Leakage": (2, {"template": "It is {}."}),
    "Mauve": (2, {"references": None, "min_texts": 100}),
    "Rouge": (2, {"stem": True}),
    "SelfBleu": (2, {"tokenize": "auto"}),
    "Topic": (2, {"temperature": 0.03}),
    "Translation": (2, {"tokenize": "auto"}),
}
"""By metric: its version and its defaults."""


@dataclass(frozen=True, kw_only=True)
class Exclamation:
    """A metric of somebody's own."""

    columns: ClassVar[Any] = {
        "exclamations": ColumnInfo(meaning="exclamation marks <!>", better="lower", bounds=(0, INFINITY))
    }
    mark: str = "!"

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {"exclamations": [float(sample.text.count(self.mark)) for sample in texts]}


# What metrics declare


def test_direction_bounds_role_and_rank_of_every_packaged_column() -> None:
    described = {
        "topic_medicine" if name == "topic_*" else name.replace("*", "") for name in packaged_columns()
    }
    assert COLUMNS.keys() <= described
    for name, expected in COLUMNS.items():
        info = column_info(name)
        assert (info.better, info.bounds, info.role, info.rank) == expected, name
        assert (analysis.better(name), analysis.bounds(name)) == expected[:2]
        assert analysis.meaning(name) == info.meaning != ""


def test_all_packaged_columns_on_one_page() -> None:
    aims = [name for name, (better, _, role, _) in COLUMNS.items() if better and role == "aim"]
    aims.sort(key=lambda name: COLUMNS[name][3])  # by rank
    prices = ("perplexity", "distinct_1", "toxicity", "relevance")
    others = [name for name in COLUMNS if name not in (*aims, *prices)]
    assert roles_of(list(COLUMNS)) == Roles(tuple(aims), prices, tuple(others))


def test_the_price_of_a_family_is_its_most_telling_column_that_was_scored() -> None:
    fluency = ["evaluator_bits_per_byte", "evaluator_perplexity", "bits_per_byte", "perplexity"]
    for last in range(1, 5):
        assert roles_of(["sentiment", *fluency[:last]]).prices == (
            fluency[0] if last < 3 else fluency[last - 1],
        )
    diversity = ["mauve", "vendi_across", "self_bleu", "distinct_2"]
    for last in range(1, 5):
        assert roles_of(["sentiment", *diversity[:last]]).prices == (diversity[last - 1],)


@pytest.mark.parametrize("name", sorted(OFFLINE))
def test_a_metric_gives_the_columns_it_declares(name: str) -> None:
    metric = OFFLINE[name]
    assert metric.score([]) == {column: [] for column in columns_of(metric)}
    read = {"tokens_read": (3,), "tokens_read_in_full": (3,), "parameters": (1,)}
    with pytest.warns(UserWarning, match="mauve") if name == "Mauve" else nullcontext():
        scores = metric.score([text("Hello there", **read), text("", **read)])
    assert list(scores) == list(columns_of(metric))
    assert {len(values) for values in scores.values()} == {2}


def test_columns_whose_names_depend_on_arguments() -> None:
    topics = Topic(topics=[{"war": "w"}, {"peace": "p"}], embedder=lambda: FakeEmbedder({}))
    assert list(topics.columns) == ["topic_war", "topic_peace"]
    judge = Evaluator(model="m", loader=lambda *_: lambda pairs: [], column="judge")
    assert list(judge.columns) == list(judge.score([])) == ["judge_perplexity", "judge_bits_per_byte"]
    assert judge.columns["judge_perplexity"] == column_info("evaluator_perplexity")
    labelled = Classifier(model="m", label="formal", loader=lambda *_: lambda texts: [], better="higher")
    assert labelled.columns == {
        "classifier": ColumnInfo(
            meaning="probability of the label 'formal' by the classifier m",
            better="higher",
            bounds=SHARE,
            languages="those of the classifier",
        )
    }
    assert list(labelled.score([])) == ["classifier"]
    assert EvaluateModule(module="m", column="c", better="lower").columns["c"].better == "lower"


def test_two_metrics_that_give_the_same_column_describe_it_alike() -> None:
    descriptions: defaultdict[str, set[ColumnInfo]] = defaultdict(set)
    for metric in METRICS.values():
        for column, info in columns_of(metric).items():
            descriptions[column].add(info)
    assert [column for column, infos in descriptions.items() if len(infos) > 1] == []


def test_nothing_is_known_of_an_unknown_column() -> None:
    assert column_info("unheard_of") == ColumnInfo()
    assert (analysis.better("unheard_of"), analysis.meaning("unheard_of")) == (None, "")
    assert analysis.bounds("unheard_of") == ANY
    assert analysis.better("perplexity_of_mine") is None  # only whole names count
    assert roles_of(["unheard_of"]) == Roles((), (), ("unheard_of",))


def test_a_wrong_description_is_an_error() -> None:
    for wrong, message in (
        ({"better": "up"}, r"better must be higher, lower or null, got 'up'"),
        ({"role": "price"}, r"role must be one of aim, fluency, .*, got 'price'"),
        ({"bounds": (1, 0)}, r"bounds must be \(least, greatest\), got \(1, 0\)"),
    ):
        with pytest.raises(InputError, match=message):
            ColumnInfo(**wrong)  # type: ignore[arg-type]


def test_a_metric_must_declare_what_it_gives() -> None:
    class Silent:
        def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
            return {"silent": []}

    class Mistaken(Silent):
        columns: ClassVar[Any] = {"loud": ColumnInfo()}

    silent: Any = Silent()
    with pytest.raises(InputError, match="Silent declares no columns; give the class an attribute columns"):
        columns_of(silent)
    with pytest.raises(InputError, match="Mistaken declares the columns loud and gives silent"):
        prepare_metrics([Mistaken()])


def test_the_name_of_the_first_column_is_known_without_loading_anything() -> None:
    def refuse() -> Any:
        raise AssertionError("the embedder was loaded")

    metrics = [Length(), Sentiment(embedder=refuse), Topic(topics=[{"a": "a"}, {"b": "b"}], embedder=refuse)]
    assert main_columns(metrics) == ["length", "sentiment", "topic_a"]


# Which scores are kept


@dataclass(frozen=True, kw_only=True)
class Before:
    columns: ClassVar[Any] = {"x": ColumnInfo()}
    scale: float = 1.0
    loader: Any = field(default=None, repr=False)

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {"x": []}


@dataclass(frozen=True, kw_only=True)
class After(Before):
    offset: float = 0.0


After.__name__ = "Before"


def test_an_argument_that_is_added_with_a_default_keeps_the_scores() -> None:
    assert scorer_key(After()) == scorer_key(Before())
    assert scorer_key(After(scale=3)) == scorer_key(Before(scale=3.0))
    assert scorer_key(After(offset=1)) != scorer_key(Before())


def test_other_arguments_another_class_and_another_version_have_other_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {scorer_key(metric) for metric in (*METRICS.values(), Before(), Before(scale=2), Exclamation())}
    assert len(keys) == len(METRICS) + 3
    assert scorer_key(Before(loader=print)) == scorer_key(
        Before(loader=repr)
    )  # how it is loaded is no matter
    before = scorer_key(Exclamation())
    assert scorer_key(Exclamation(mark="?")) != before
    monkeypatch.setattr(Exclamation, "version", 1, raising=False)
    assert scorer_key(Exclamation()) == before
    monkeypatch.setattr(Exclamation, "version", 2)
    assert scorer_key(Exclamation()) != before
    arguments = EvaluateModule(module="m", column="c", arguments={"normalise": True})
    assert scorer_key(arguments) != scorer_key(replace(arguments, arguments={}))


def test_the_direction_of_a_classifier_does_not_score_it_again() -> None:
    metric = METRICS["Classifier"]
    assert scorer_key(replace(metric, better="lower")) == scorer_key(metric)  # type: ignore[type-var]


def test_a_default_changes_only_with_the_version() -> None:
    """Default arguments are not part of a scorer's key, so another default needs another version."""
    actual: dict[str, tuple[int, dict[str, Any]]] = {}
    for name, metric in METRICS.items():
        defaults = {
            each.name: each.default if each.default_factory is MISSING else each.default_factory()
            for each in fields(metric)  # type: ignore[arg-type]
            if each.default is not MISSING or each.default_factory is not MISSING
        }
        if defaults:
            actual[name] = (getattr(metric, "version", 1), defaults)
    assert {name: actual[name] for name in DEFAULTS} == DEFAULTS, (
        "raise the metric's version and change DEFAULTS here"
    )


# What a results folder keeps


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    sweep(*on(folder, tiny_folder), "guidance.scale=1,2")
    return folder / "results" / "study"


@pytest.fixture
def results(swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(known_columns, "_declared", {})
    return Path(shutil.copytree(swept, tmp_path / "study"))


OWN = ["metrics=[length]", "+metrics.exclamation._target_=tests.test_metrics_of_columns.Exclamation"]


def test_packaged_metrics_leave_no_descriptions(results: Path) -> None:
    run(str(results), ["metrics=[length,self_bleu]"])
    assert not (results / "metrics").exists()


def test_what_a_metric_of_ones_own_declares_reaches_the_reader(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(str(results), OWN)
    (path,) = (results / "metrics").glob("*.json")
    described = json.loads(path.read_text())
    assert described["metric"] == "Exclamation(mark='!')"
    assert described["columns"]["exclamations"]["bounds"] == [0, None]

    monkeypatch.setattr(known_columns, "_declared", {})
    assert analysis.better("exclamations") is None
    frame = cfg_lab.load_results(results)
    assert frame["exclamations"].notna().all()
    assert column_info("exclamations") == Exclamation.columns["exclamations"]
    assert meaning_html("exclamations") == "exclamation marks &lt;!&gt;; lower is better"
    assert roles_of(analysis.metrics_of(frame)).aims == ("exclamations",)


def test_the_page_of_another_process_knows_it_too(results: Path) -> None:
    run(str(results), OWN)
    subprocess.run(
        [sys.executable, "-m", "cfg_lab.report", str(results)],
        check=True,
        env=environment(),
        capture_output=True,
    )
    page = (results / "report.html").read_text()
    assert "<dt>exclamations</dt><dd>exclamation marks &lt;!&gt;; lower is better</dd>" in page


def test_scoring_again_writes_no_description_again(results: Path) -> None:
    run(str(results), OWN)
    before = {path: path.stat().st_mtime_ns for path in (results / "metrics").iterdir()}
    run(str(results), OWN)
    assert {path: path.stat().st_mtime_ns for path in (results / "metrics").iterdir()} == before


def test_a_damaged_description_is_an_error_that_names_the_file(results: Path) -> None:
    run(str(results), OWN)
    (path,) = (results / "metrics").glob("*.json")
    for content in ("{", "[]", '{"columns": {"x": {"role": "price", "bounds": [0, 1]}}}', '{"columns": 1}'):
        path.write_text(content)
        with pytest.raises(StoreError, match=f"{path.name} is damaged .*; delete it: nothing else is lost"):
            cfg_lab.load_results(results)
    path.unlink()
    assert cfg_lab.load_results(results)["exclamations"].notna().all()
