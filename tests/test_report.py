"""The page: what it claims, what it contains, and that no text can break it."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import re
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cfg_lab import analysis
from cfg_lab.decoding.trace import DISTRIBUTIONS, TRACE_FIELDS
from cfg_lab.errors import InputError
from cfg_lab.metrics import packaged_cards
from cfg_lab.report import document
from cfg_lab.report.__main__ import main
from cfg_lab.report.answer import design, question
from cfg_lab.report.axes import Axis, cells_of
from cfg_lab.report.cards import cards_html
from cfg_lab.report.change import Change
from cfg_lab.report.conclusion import conclusion
from cfg_lab.report.document import as_script_text
from cfg_lab.report.findings import Finding
from cfg_lab.report.record import Record, prompts_fingerprint
from cfg_lab.report.roles import Roles, roles_of
from cfg_lab.report.scope import Scope
from cfg_lab.report.scripts import FOLDER, join_modules
from cfg_lab.report.sentences import headline, prices
from cfg_lab.report.study_analysis import analyse_study
from cfg_lab.report.write import report
from cfg_lab.study.formats import interval, signed, three_digits
from cfg_lab.study.notebook_html import LEVELS, level, results_html, token_html
from cfg_lab.study.results import load_results
from tests.cli import on, sweep
from tests.fabricated import results

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"quotes\" & 'more' &amp; <!-- <script>",
    "\u202eright to left \u05d0\u05d1\u05d2 \U0001f600",
    "a lone surrogate \ud800 and another \udfff",
    "control \x00\x07\x1b\x7f\x85\u2028\u2029\ufeff",
    "{{data}} {{script}}",
    "]]>",
]
VOID = {"meta", "link", "br", "input", "line", "circle"}


class Outline(HTMLParser):
    """Tags, headings, ids and references of a page; parsing fails if tags are not balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.links: list[str] = []
        self.landmarks: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag in {"main", "nav", "header", "footer", "aside"}:
            self.landmarks.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += attributes.get("aria-labelledby", "").split()
        self.links += [attributes[name] for name in ("src", "href", "action") if name in attributes]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def page_of(frame: pd.DataFrame, **budgets: int) -> str:
    record = Record("study", command="python -m cfg_lab.sweep")
    return document(analyse_study(frame, record), {}, **budgets)


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def packs_of(page: str) -> list[dict[str, Any]]:
    texts = re.findall(r'<script type="text/plain" id="pack-\d+">(.*?)</script>', page)
    return [json.loads(gzip.decompress(base64.b64decode(text))) for text in texts]


def answer_of(page: str) -> str:
    """The words of the answer, without tags."""
    return words(page[page.index('<section id="answer"') : page.index("<noscript>")])


def words(fragment: str) -> str:
    """The text of some HTML, with single spaces."""
    text = re.sub("<[^>]*>", "", re.sub("</(?:p|li|td|th)>", " ", fragment))
    return re.sub(r"\s+", " ", html.unescape(text))


def finding_of(frame: pd.DataFrame) -> Finding:
    """The finding of the only aim."""
    (finding,) = analyse_study(frame, Record("study")).findings
    return finding


# The question


def axis(name: str, *values: Any) -> Axis:
    return Axis(key=name, name=name, values=values, numeric=all(isinstance(v, float) for v in values))


def test_the_question_is_short_and_its_details_name_every_metric() -> None:
    aims = ("sentiment", *(f"topic_{number}" for number in range(9)))
    roles = Roles(aims=aims, prices=("perplexity", "distinct_1", "toxicity"), others=())
    axes = [axis("scale", 1.0, 1.5, 3.0), axis("negatives", "empty", "own")]
    assert question(axes, roles, compared=True) == "Does guidance raise sentiment, and at what price?"
    details = design(axes, roles, compared=True)
    assert details["varied"] == "scale (1 to 3); negatives (empty, own)"
    assert details["aims"].split(", ") == list(aims)
    assert details["prices"].split(", ") == list(roles.prices)
    assert "without guidance" in details["compared with"]


def test_the_question_follows_the_design() -> None:
    joy, leakage, nothing = (Roles(aims=aims, prices=(), others=()) for aims in (("joy",), ("leakage",), ()))
    axes = [axis("scale", 1.0, 2.0), axis("model", "a", "b")]
    assert question(axes, leakage, compared=True) == "Does guidance lower leakage?"
    assert question(axes, joy, compared=False) == "What do scale and model do to joy?"
    assert question(axes[:1], nothing, compared=True) == "What does scale change?"
    assert question([], joy, compared=False) == "How do these texts score on joy?"


def test_the_question_is_about_sentiment_before_leakage_whatever_their_order() -> None:
    for metrics in (["leakage", "sentiment"], ["sentiment", "leakage"]):
        assert roles_of(metrics).aims == ("sentiment", "leakage")


def test_the_page_shows_the_question_and_its_details() -> None:
    page = page_of(results({1: 0, 2: 0.3}))
    title = page[page.index("<h1>") + len("<h1>") : page.index("</h1>")]
    assert title == "Does guidance raise sentiment, and at what price?"
    facts = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page[: page.index("<nav")]))
    assert facts["aims"] == "sentiment"
    assert facts["prices"] == "perplexity, distinct_1"
    assert facts["varied"] == "scale (1, 2)"


# The conclusion


def conclusion_of(frame: pd.DataFrame) -> str:
    """The conclusion of a study. Checks that the page shows it directly after the question."""
    text = " ".join(analyse_study(frame, Record("study")).conclusion)
    shown = page_of(frame).partition("</h1>")[2].partition('<p class="deck">')[0]
    assert words(shown).strip() == text
    return text


def test_the_conclusion_is_the_difference_that_the_analysis_gives() -> None:
    """Verdict, difference, interval and p are those of the best guided cell, whatever the effect is."""
    verdicts: set[str] = set()
    for seed, effect in enumerate((-0.3, -0.02, 0.0, 0.02, 0.035, 0.3)):
        frame = results({1: 0, 1.5: effect / 2, 2: effect}, noise=0.06, seed=seed, prompts=16)
        table = analysis.comparisons(frame, ["sentiment", "perplexity", "distinct_1"])
        row = table[table["metric"] == "sentiment"].sort_values("difference").iloc[-1]
        text = conclusion_of(frame)
        if row["p_holm"] < 0.05:
            expected = "Yes" if row["difference"] > 0 else "No"
        else:
            expected = "Not certain" if row["p"] < 0.05 else "Not shown"
        verdicts.add(expected)
        direction = "higher" if row["difference"] > 0 else "lower"
        cell = f"with guidance (scale {row['guidance.scale']:g}, the best of 2 guided cells)"
        by, span = signed(row["difference"]), f"95 % interval {interval(row['low'], row['high'])}"
        if expected == "Not shown":
            assert text.startswith(f"Not shown: sentiment changes by {by} {cell}, {span}, on 16 prompts, p")
            assert f" A gain above {three_digits(row['high'])} is unlikely." in text
        else:
            assert text.startswith(
                f"{expected}: sentiment is {direction} {cell} than without: {by}, {span}, on 16 prompts, p"
            )
    assert verdicts == {"Yes", "No", "Not certain", "Not shown"}


def test_the_conclusion_names_the_price() -> None:
    dear = results({1: 0, 2: 0.3}, price=2).assign(
        gflop=lambda frame: 1 + 1.06 * (frame["guidance.scale"] > 1)
    )
    assert re.search(
        r" Price: perplexity \+[\d.]+ \[[\d., ]+\] and 2.06 times the operations\.$", conclusion_of(dear)
    )
    free = results({1: 0, 2: 0.3}, noise=1e-3)
    assert "Price" not in conclusion_of(free)
    counted = conclusion_of(free.assign(gflop=1.0))
    assert counted.endswith(
        " Price: 1 times the operations; no significant loss in perplexity or distinct_1."
    )


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (results({2: 0.1}), "sentiment is 0.603 in the only cell. There is nothing to compare it with."),
        (
            results({1.5: 0, 2: 0.1}),
            "Unknown: no cell runs without guidance. Add guidance.scale=1 to the sweep.",
        ),
        (results({1: 0}, negatives=("a", "b")), "Unknown: no cell is guided."),
        (
            results({1: 0, 2: 0}, noise=0),
            "No: sentiment is the same with guidance (scale 2) as without, on 20 prompts.",
        ),
        (
            results(prompts=1),
            r"Unknown: sentiment is higher .* \[no interval\], on 1 prompt, and its p value",
        ),
        (results().drop(columns=["sentiment", "perplexity", "distinct_1"]), "^$"),
    ],
)
def test_the_conclusion_says_what_is_not_known(frame: pd.DataFrame, expected: str) -> None:
    assert re.match(expected.replace("(scale 2)", r"\(scale 2\)"), conclusion_of(frame))


def test_the_conclusion_compares_with_the_other_negative() -> None:
    frame = results({1: 0, 2: 0.3}, negatives=("empty", "own"))
    frame.loc[(frame["negatives"] == "own") & (frame["guidance.scale"] == 2), "sentiment"] += 0.2
    other = finding_of(frame).neighbours[0].change
    difference = f"{signed(other.difference)} {interval(other.low, other.high)}, p < 0.001."
    assert f" Compared with negatives empty, all else equal: {difference}" in conclusion_of(frame)
    alike = results({1: 0, 2: 0.3}, negatives=("empty", "own"))
    assert "Compared with" not in conclusion_of(alike)


def test_the_excluded_gain_is_only_named_if_it_is_possible() -> None:
    """Sentiment is at most 1, so 0.6 can gain 0.4."""
    values = {"difference": 0.01, "p": 0.5, "p_holm": 1.0, "low": -0.5}
    for high, named in ((0.3, True), (0.5, False), (math.nan, False), (-0.1, False)):
        first, *_ = conclusion(finding(change(high=high, **values)), SCOPE)
        assert first.endswith(" A gain above 0.3 is unlikely.") == named
        assert ("A gain above" in first) == named


def test_a_lead_is_not_certain_and_says_how_many_prompts_would_decide() -> None:
    (text,) = conclusion(finding(change()), SCOPE)
    assert text == (
        "Not certain: sentiment is higher with guidance (scale 2, the best of 3 guided cells) than without: "
        "+0.1, 95 % interval [0.01, 0.19], on 16 prompts, p = 0.03 before and p = 0.2 after correction over "
        "9 comparisons. About 42 prompts would detect a difference of this size with 80 % power."
    )


# The answer


def test_a_clear_improvement_is_significant_and_has_its_price() -> None:
    text = answer_of(page_of(results({1: 0, 1.5: 0.1, 2: 0.3}, price=2)))
    assert "scale 2 has the highest sentiment" in text
    assert "It is a significant improvement: p < 0.001 after correction, on 20 prompts." in text
    (means,) = re.findall(r"Significantly worse: perplexity from ([\d.]+) to ([\d.]+)", text)
    assert [float(mean) for mean in means] == pytest.approx([5, 7], abs=0.1)
    assert (
        "Compared with decoding without guidance, sentiment is significantly better in 2 of 2 guided cells."
        in text
    )
    assert "chosen on the same texts" in text
    assert "Holm's correction over the 6 comparisons" in text


def test_the_best_cell_is_compared_with_cells_that_have_another_negative() -> None:
    frame = results({1: 0, 2: 0.1, 3: 0.2}, negatives=("empty", "own", "bos"), noise=0.02)
    frame.loc[(frame["negatives"] == "own") & (frame["guidance.scale"] == 3), "sentiment"] += 0.3
    text = answer_of(page_of(frame))
    table = analysis.comparisons(
        frame[frame["guidance.scale"] == 3], ["sentiment"], baseline={"negatives": "own"}
    ).set_index("negatives")
    for other in ("empty", "bos"):
        row = table.loc[other]
        difference = f"{signed(-row['difference'])} {interval(-row['high'], -row['low'])}"
        assert f"With negatives {other} and all else equal, sentiment is" in text
        assert f"The best cell differs from it by {difference}. It is a significant improvement" in text
    neighbours = finding_of(frame).neighbours
    assert {neighbour.value for neighbour in neighbours} == {"empty", "bos"}
    for neighbour in neighbours:
        row = table.loc[neighbour.value]
        assert neighbour.change.p_holm == pytest.approx(
            min(1, 6 * row["p_holm"])
        )  # the best of 6 guided cells
        assert neighbour.change.difference == pytest.approx(-row["difference"])
    only_scale_varies = results({1: 0, 2: 0.3})
    assert "all else equal" not in answer_of(page_of(only_scale_varies))


def test_without_a_significant_difference_the_number_of_prompts_needed_is_given() -> None:
    text = answer_of(page_of(results({1: 0, 2: 0.004}, noise=0.1)))
    assert "significant improvement" not in text
    assert "No difference in sentiment was detected on 20 prompts." in text
    assert re.search(r"About [\d,]+ prompts? would detect a difference of this size", text)


def test_a_significantly_worse_best_cell_is_called_worse() -> None:
    text = answer_of(page_of(results({1: 0, 2: -0.3})))
    assert "No guided cell improves sentiment" in text
    assert "It is significantly worse: p < 0.001 after correction" in text
    assert "significant improvement" not in text


def test_each_cell_is_compared_with_its_own_baseline() -> None:
    """A second model that is better without guidance does not hide what guidance does to the first."""
    weak, strong = results({1: 0, 2: 0.3}), results({1: 0.4, 2: 0.2})
    strong["model"], strong["cell"] = "large", "large-" + strong["cell"]
    strong["completion"] = "large-" + strong["completion"]
    text = answer_of(page_of(pd.concat([weak, strong], ignore_index=True)))
    assert re.search(r"is without guidance: 0\.\d+, in model large, scale 1\.", text)
    assert re.search(
        r"best guided cell is model tiny, scale 2: 0.[78]\d*, against 0.[45]\d* in its own baseline", text
    )
    assert "It is a significant improvement: p < 0.001" in text
    assert "No guided cell" not in text


def test_a_cell_without_scores_of_an_aim_is_named() -> None:
    frame = results({1: 0, 2: 0.3, 3: 0.5})
    frame.loc[frame["guidance.scale"] == 3, "sentiment"] = math.nan
    assert "because sentiment has no score there: scale 3." in answer_of(page_of(frame))
    assert "Not compared" not in answer_of(page_of(results({1: 0, 2: 0.3, 3: 0.5})))


def test_the_page_says_if_the_best_cell_has_an_extreme_scale() -> None:
    beyond = "The best cell has the largest scale tried. No larger scale was tried."
    assert beyond in answer_of(page_of(results({1: 0, 2: 0.1, 3: 0.4})))
    assert beyond not in answer_of(page_of(results({1: 0, 1.5: 0.1, 2: 0.4, 3: 0.1})))
    assert "smallest scale tried" in answer_of(page_of(results({1: 0, 1.5: 0.4, 2: 0.2, 3: 0.1})))
    assert "scale tried" not in answer_of(page_of(results({1: 0, 2: -0.2, 3: -0.4})))


def test_texts_of_the_negative_itself_are_no_success_of_guidance() -> None:
    """At scale 0 the negative is decoded, such as an instruction or a base model."""
    with_zero = analyse_study(results({0.0: 0.4, 1.0: 0.0, 2.0: 0.1, 3.0: 0.05}), Record("study"))
    (finding, *_) = with_zero.findings
    assert finding.change is not None
    labels = with_zero.cells.labels
    assert labels[finding.change.cell] == labels[finding.best or 0] == "scale 2"
    assert finding.guided == 2
    # The cell is compared all the same, and alone it is what the study is about.
    assert {change.cell for change in with_zero.comparisons.of(finding.metric)} == {0, 2, 3}
    alone = analyse_study(results({0.0: 0.4, 1.0: 0.0}), Record("study"))
    (finding, *_) = alone.findings
    assert finding.change is not None
    assert finding.change.cell == 0


def test_the_page_warns_of_too_many_comparisons_for_the_prompts() -> None:
    scales = {1 + number / 4: 0.0 for number in range(10)}
    many = results(scales, prompts=12, samples=1, negatives=("empty", "own", "bos", "last_token"))
    warning = "With 12 prompts and 108 comparisons no difference can be significant"
    assert warning in answer_of(page_of(many))
    fewer = many[many["negatives"] != "bos"]
    assert "no difference can be significant" not in answer_of(page_of(fewer))


def test_the_price_of_a_cell_is_listed_once() -> None:
    frame = results({1: 0, 2: 0.3}, price=2)
    text = answer_of(page_of(frame.assign(joy=frame["sentiment"], leakage=-frame["sentiment"])))
    assert text.count("Its price:") == 1
    assert "The best guided cell is the same as for sentiment, at the same price." in text


def test_prompts_of_two_sets_that_share_ids_are_told_apart() -> None:
    first, second = results({1: 0, 2: 0.3}, prompts=3), results({1: 0, 2: 0.3}, prompts=3, seed=1)
    second["prompt"], second["cell"] = "Another " + second["prompt"], "other-" + second["cell"]
    second["prompts"], first["prompts"] = "mine", "openers"
    second["completion"] = "other-" + second["completion"]
    data = data_of(page := page_of(pd.concat([first, second], ignore_index=True)))
    assert "6 prompts" in page
    assert data["prompts"]["text"] == [*first["prompt"].unique(), *second["prompt"].unique()]
    for cell, prompt in zip(data["rows"]["cell"], data["rows"]["prompt"], strict=True):
        assert data["cells"]["id"][cell].startswith("other-") == (prompt >= 3)


def test_the_page_says_how_many_planned_texts_are_decoded(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2", "max_rows=2", "samples=1")
    root = tmp_path / "results" / "study"
    assert "planned texts are decoded" not in answer_of(report(root).read_text())
    whole = pq.read_table(root / "completions")
    for shard in (root / "completions").glob("*.parquet"):
        shard.unlink()
    pq.write_table(whole.slice(0, 4), root / "completions" / "part.parquet")
    assert "4 of 6 planned texts are decoded" in answer_of(report(root).read_text())
    (root / "completions" / "part.parquet").unlink()
    with pytest.raises(InputError, match=r"nothing in .* is decoded yet"):
        report(root)


def test_a_single_cell_has_nothing_to_compare_with() -> None:
    page = page_of(results({2: 0.1}))
    assert "sentiment is 0.6" in answer_of(page)
    assert "There is nothing to compare it with." in answer_of(page)
    assert "<h1>How do these texts score on sentiment?</h1>" in page
    assert "compared with" not in page[: page.index("<nav")]


def test_without_a_baseline_no_difference_is_claimed() -> None:
    text = answer_of(page_of(results({1.5: 0.1, 2: 0.4})))
    assert "scale 2 has the highest sentiment" in text
    assert "Add guidance.scale=1 to the sweep" in text
    assert "significant" not in text
    assert "difference" not in text


def test_a_metric_without_scores_is_named_and_left_out() -> None:
    frame = results()
    frame["sentiment"] = math.nan
    page = page_of(frame)
    assert "No text has a score of sentiment." in answer_of(page)
    assert "sentiment" not in [metric["name"] for metric in data_of(page)["metrics"]]


def test_single_missing_scores_do_no_harm() -> None:
    frame = results({1: 0, 2: 0.3})
    frame.loc[::7, "sentiment"] = math.nan
    assert "It is a significant improvement" in answer_of(page_of(frame))


def test_one_prompt_gives_no_interval() -> None:
    text = answer_of(page_of(results(prompts=1)))
    assert "There is one prompt." in text
    with_neighbour = answer_of(page_of(results(negatives=("empty", "own"), prompts=1)))
    assert re.search(
        r"With negatives \w+ and all else equal, .* more than chance is unknown, because there is one prompt",
        with_neighbour,
    )
    for answer in (text, with_neighbour):
        assert "It is a significant" not in answer
        assert "not significant" not in answer
        assert "[no interval]" in answer
        assert "nan" not in answer


def test_a_difference_is_called_significant_exactly_if_the_corrected_p_is_below_5_percent() -> None:
    verdicts: set[bool] = set()
    for seed in range(6):  # from no effect to a clear one
        frame = results({1: 0, 2: 0.02 * seed}, noise=0.08, seed=seed, prompts=12)
        table = analysis.comparisons(frame, metrics=["sentiment", "perplexity", "distinct_1"])
        row = table[table["metric"] == "sentiment"].iloc[0]
        significant = bool(row["p_holm"] < 0.05 and row["difference"] > 0)
        assert ("It is a significant improvement" in answer_of(page_of(frame))) == significant
        verdicts.add(significant)
    assert verdicts == {True, False}


def change(**values: Any) -> Change:
    usual = {
        "metric": "sentiment", "cell": 1, "baseline": 0, "mean": 0.7, "baseline_mean": 0.6, "difference": 0.1,
        "low": 0.01, "high": 0.19, "p": 0.03, "p_holm": 0.2, "effect": 0.4, "needed": 41.2,
    }  # fmt: skip
    return Change(**{**usual, **values})


def finding(best: Change, *prices: Change, compute: float = math.nan) -> Finding:
    return Finding(
        metric=best.metric,
        best=best.cell,
        best_mean=best.mean,
        change=best,
        prices=prices,
        neighbours=(),
        compute=compute,
        better=(),
        worse=(),
        unscored=(),
        edge="",
        guided=3,
    )


SCOPE = Scope(labels=("scale 1", "scale 2"), unguided=1, prompts=16, texts=64, planned=64, comparisons=9)


def test_a_difference_that_the_correction_removes_is_a_lead() -> None:
    text = words(headline(finding(change()), SCOPE))
    assert "a lead, not a result" in text
    assert "p = 0.03 before correction, but p = 0.2 after correction over 9 comparisons" in text
    assert "About 42 prompts would detect" in text


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"p_holm": 0.01}, "better"),
        ({"p_holm": 0.01, "difference": -0.1}, "worse"),
        ({"p_holm": 0.01, "metric": "length"}, "different"),
        ({"p_holm": 0.06, "p": 0.04}, "lead"),
        ({"p_holm": 0.06, "p": 0.06}, "not_significant"),
        ({"p_holm": math.nan}, "unknown"),
    ],
)
def test_each_verdict_follows_from_p_and_direction(values: dict[str, Any], verdict: str) -> None:
    assert change(**values).verdict == verdict


def test_unknown_and_infinite_numbers_are_not_printed() -> None:
    unknown = change(low=math.nan, high=math.nan, p=math.nan, p_holm=math.nan, needed=math.inf)
    text = headline(finding(unknown, change(metric="perplexity", p=0.5, p_holm=1.0)), SCOPE)
    assert "nan" not in text
    assert "inf" not in text
    assert "Its p value is unknown" in text


def test_the_price_separates_significant_changes_leads_and_the_rest() -> None:
    items = prices(
        finding(
            change(),
            change(metric="perplexity", p=0.001, p_holm=0.01),
            change(metric="distinct_1", p=0.001, p_holm=0.01),
            change(metric="relevance", p=0.5, p_holm=1.0),
            change(metric="toxicity"),
            change(metric="vendi"),
            compute=2.163,
        ),
        SCOPE,
    )
    beginnings = [" ".join(words(item).split()[:6]) for item in items]
    assert beginnings == [
        "Computation: 2.16 times that of the",
        "Significantly worse: perplexity from 0.6 to",
        "Significantly better: distinct_1 from 0.6 to",
        "Perhaps worse (a lead): toxicity from",
        "Perhaps better (a lead): vendi from",
        "No difference detected on 16 prompts:",
    ]
    assert words(items[-1]).endswith("16 prompts: relevance.")


def test_roles_are_given_by_name_and_one_of_a_family_is_corrected_for() -> None:
    roles = roles_of(
        ["bits_per_byte", "distinct_1", "distinct_2", "length", "perplexity", "sentiment", "toxicity"]
    )
    assert roles.aims == ("sentiment",)
    assert roles.prices == ("perplexity", "distinct_1", "toxicity")
    assert set(roles.others) == {"bits_per_byte", "distinct_2", "length"}
    assert roles_of(["perplexity", "toxicity"]).aims == ("toxicity",)
    assert roles_of(["length"]).aims == ()


def test_metrics_without_a_direction_claim_nothing() -> None:
    frame = results().drop(columns=["sentiment", "perplexity", "distinct_1"])
    assert "so no cell is the best" in answer_of(page_of(frame))


def test_cells_are_named_by_what_varies() -> None:
    cells = cells_of(results({1: 0, 2.5: 0}, negatives=("empty", "own"), prompts=2))
    assert cells.labels[-1] == "negatives own, scale 2.5"
    assert len(set(cells.labels)) == 4


def test_guidance_is_off_where_no_negative_ran_whatever_the_scale() -> None:
    """Scale 1 with a negative is guided, and scale 2 without one is not."""
    frame = results({1: 0.1, 2: 0, 3: 0.3}, prompts=4)
    off = frame["guidance.scale"] == 2
    frame["negative_ids"] = [[] if is_off else [[1]] for is_off in off]
    cells = data_of(page_of(frame))["cells"]
    assert dict(zip(cells["id"], cells["unguided"], strict=True)) == {
        "own-1": False,
        "own-2": True,
        "own-3": False,
    }
    assert cells_of(frame).unguided == {cells["id"].index("own-2")}


# What the page contains


def test_the_page_is_well_formed_and_fetches_nothing() -> None:
    parsed = outline(page_of(results(pieces=True, top=3, negatives=("empty", "own"))))
    levels = parsed.headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(parsed.ids) == len(set(parsed.ids))
    assert set(parsed.references) <= set(parsed.ids)
    assert {"main", "nav", "header", "footer"} <= set(parsed.landmarks)
    assert len(parsed.links) > 5
    assert all(link.startswith(("#", "data:")) for link in parsed.links)


def test_the_policy_lets_this_script_run_and_no_other() -> None:
    page = page_of(results())
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_the_same_results_make_the_same_page() -> None:
    frame = results(pieces=True, top=2)
    assert page_of(frame) == page_of(frame.copy())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_arrive_unchanged_and_stay_inside_the_data(text: str) -> None:
    frame = results(prompts=2)
    frame["text"] = pd.Series([text] * len(frame), dtype=object)  # Arrow's strings hold no lone surrogate
    frame["prompt"] = prompt = text.encode("utf-8", "replace").decode()
    page = page_of(frame)
    page.encode()  # what UTF-8 cannot carry is escaped
    outline(page)
    assert data_of(page)["completions"]["text"][0] == text
    assert data_of(page)["prompts"]["text"][0] == prompt
    assert page.count("</script>") == page_of(results(prompts=2)).count("</script>")
    assert "\x00" not in page


def test_json_in_a_script_holds_no_markup() -> None:
    for text in HOSTILE:
        embedded = as_script_text([text])
        assert "<" not in embedded
        assert json.loads(embedded) == [text]


def test_texts_and_token_numbers_are_embedded_as_they_are() -> None:
    frame = results({1: 0, 2: 0.1}, prompts=3, pieces=True, top=2, negatives=("empty", "own"))
    page = page_of(frame)
    data, packs = data_of(page), packs_of(page)
    assert len(data["rows"]["cell"]) == len(frame)
    assert len(data["completions"]["text"]) == frame["completion"].nunique()  # scale 1 is stored once
    for row in range(len(frame)):
        number = data["rows"]["completion"][row]
        pack = packs[data["completions"]["pack"][number]]
        text = pack["texts"][str(number)]
        cell = data["cells"]["id"][data["rows"]["cell"][row]]
        prompt = data["prompts"]["id"][data["rows"]["prompt"][row]]
        chosen = (frame["cell"] == cell) & (frame["prompt_id"] == prompt)
        original = frame[chosen & (frame["sample"] == data["rows"]["sample"][row])].iloc[0]
        assert data["completions"]["text"][number] == original["text"]
        assert [pack["pieces"][index] for index in text["pieces"]] == original["pieces"]
        assert set(text["trace"]) == set(TRACE_FIELDS)
        for name in TRACE_FIELDS:
            sign = -1 if name in DISTRIBUTIONS else 1
            expected = [None if math.isnan(v) else round(100 * sign * v) for v in original[f"trace_{name}"]]
            assert text["trace"][name] == expected, name
        assert set(text["alternatives"]) == set(DISTRIBUTIONS)
        for name in DISTRIBUTIONS:
            assert pack["pieces"][text["alternatives"][name][0][2]] == f" {name}1"
            assert text["alternatives"][name][0][3] == 150


def test_every_number_of_the_figures_is_the_analysis() -> None:
    frame = results({1: 0, 2: 0.2}, negatives=("empty", "own"))
    data, summary = data_of(page_of(frame)), analysis.summary(frame).set_index("cell")
    front = analysis.pareto(frame, "perplexity", "sentiment", x_better="lower", y_better="higher").set_index(
        "cell"
    )
    (embedded,) = [pair for pair in data["fronts"] if {pair["x"], pair["y"]} == {"perplexity", "sentiment"}]
    primary = analysis.comparisons(frame, ["sentiment", "perplexity", "distinct_1"])
    for metric in data["metrics"]:
        changes = primary[primary["metric"] == metric["name"]].set_index("cell")
        for number, cell in enumerate(data["cells"]["id"]):
            for column, ending in {"mean": "", "low": "_low", "high": "_high"}.items():
                expected = summary.loc[cell, metric["name"] + ending]
                assert metric[column][number] == pytest.approx(expected, rel=1e-4)
            assert metric["n"][number] == summary.loc[cell, f"{metric['name']}_n"]
            for column in ("difference", "low", "high", "p", "p_holm", "effect", "needed"):
                value = metric["change"][column][number]
                if cell in changes.index:
                    assert value == pytest.approx(changes.loc[cell, column], rel=1e-4), column
                elif data["cells"]["unguided"][number]:
                    assert value is None
    for number, cell in enumerate(data["cells"]["id"]):
        assert embedded["on_front"][number] == bool(front.loc[cell, "on_front"])
        assert embedded["probability"][number] == pytest.approx(front.loc[cell, "probability"], abs=1e-3)


def test_the_type_checker_knows_every_field_of_the_data() -> None:
    """The scripts' types name the same fields as the data that Python writes."""
    source = (FOLDER / "types.d.ts").read_text()

    def fields(interface: str) -> set[str]:
        (body,) = re.findall(rf"^export interface {interface} {{\n(.*?)^}}", source, re.DOTALL | re.MULTILINE)
        return set(re.findall(r"^  (\w+):", body, re.MULTILINE))

    page = page_of(results(pieces=True, top=2))
    data = data_of(page)
    pack = packs_of(page)[0]
    for interface, value in {
        "PageData": data,
        "Axis": data["axes"][0],
        "Cells": data["cells"],
        "Metric": data["metrics"][0],
        "Changes": data["metrics"][0]["change"],
        "Front": data["fronts"][0],
        "TraceField": data["tokens"]["fields"][0],
        "Pack": pack,
        "PackedText": next(iter(pack["texts"].values())),
    }.items():
        assert fields(interface) == set(value), interface


def test_the_numbers_of_a_trace_are_named_in_one_place() -> None:
    tokens = data_of(page_of(results(pieces=True)))["tokens"]
    assert [field["name"] for field in tokens["fields"]] == list(TRACE_FIELDS)
    assert tokens["distributions"] == list(DISTRIBUTIONS)
    assert set(tokens["change"]) <= set(DISTRIBUTIONS)
    names = "|".join({*TRACE_FIELDS, *DISTRIBUTIONS})
    script = (FOLDER / "tokens.js").read_text()  # the module that reads traces
    assert re.findall(rf"[\"'`.](?:trace_|alternatives_|top_)?(?:{names})\b", script) == []


def test_results_without_pieces_have_no_packs() -> None:
    page = page_of(results())
    assert packs_of(page) == []
    data = data_of(page)
    assert data["tokens"]["available"] is False
    assert data["tokens"]["note"] == ""
    assert set(data["completions"]["pack"]) == {None}


# The scripts


def test_modules_run_after_the_modules_that_they_import() -> None:
    sources = {
        "main": 'import { b } from "./b.js";\nimport { a } from "./a.js";\nuse(a, b);\n',
        "b": 'import {\n  a,\n  twice as double,\n} from "./a.js";\nexport const b = double(a);\n',
        "a": "export const a = 1;\nexport function twice(x) {\n  return 2 * x;\n}\n",
        "unused": "throw new Error();\n",
    }
    script = join_modules(sources, "main")
    assert re.findall(r"^const module_(\w+) = ", script, re.MULTILINE) == [
        "a",
        "b",
        "main",
    ]
    assert "const {\n  a,\n  twice: double,\n} = module_a;" in script
    assert "return { a, twice };" in script
    assert "import" not in script
    assert "export" not in script


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('import { a } from "./main.js";\n', "circle: main -> other -> main"),
        ('import { a } from "./absent.js";\n', "other imports absent.js, which does not exist"),
        ("export let a = 1;\n", r"other.js: this form is not supported: export let a = 1;"),
        ('import * as all from "./third.js";\n', "not supported: import"),
        ("export default 1;\n", "not supported: export default"),
    ],
)
def test_modules_that_cannot_be_joined_are_an_error(source: str, problem: str) -> None:
    sources = {"main": 'import { a } from "./other.js";\n', "other": source, "third": ""}
    with pytest.raises(ValueError, match=problem):
        join_modules(sources, "main")


def test_numpy_columns_as_parquet_gives_them(tmp_path: Path) -> None:
    frame = results(prompts=2, pieces=True, top=2)
    frame.to_parquet(tmp_path / "frame.parquet")
    assert page_of(pd.read_parquet(tmp_path / "frame.parquet")) == page_of(frame)


def test_budgets_leave_out_whole_prompts_and_say_so() -> None:
    frame = results(prompts=10, pieces=True, top=5, negatives=("empty", "own"))
    whole = data_of(page_of(frame))
    assert whole["tokens"]["note"] == ""
    assert whole["texts_left_out"] == 0
    small = data_of(page_of(frame, token_budget=3000, text_budget=400))
    assert "larger --tokens" in small["tokens"]["note"]
    assert small["texts_left_out"] == len(frame) - len(small["rows"]["cell"]) > 0
    without = page_of(frame, token_budget=0)
    assert packs_of(without) == []
    assert data_of(without)["tokens"]["note"].endswith("Write it with a larger --tokens to include them.")
    cells = len(small["cells"]["id"])
    texts = Counter(zip(small["rows"]["prompt"], small["rows"]["sample"], strict=True))
    assert len(texts) > 1
    assert set(texts.values()) == {cells}  # each sample is there for all cells or for none


def test_five_hundred_texts_are_a_small_file() -> None:
    frame = results({1: 0, 1.5: 0.1, 2: 0.2, 3: 0.3}, prompts=31, samples=4, pieces=True, top=5)
    assert len(page_of(frame).encode()) < 1_000_000


def test_the_record_says_how_to_repeat_it() -> None:
    frame = results(prompts=3)
    environment = {"python": "3.11.7", "git_revision": "deadbeef", "packages": {"torch": "2.13.0"}}
    cost = {"model": "smollm2", "device": "cpu", "texts": 9, "tokens": 4000, "seconds": 20.0, "steps": 50}
    cost |= {"rows": 3000, "negative_rows_saved": 120, "peak_memory": 1_650_000_000}
    record = Record("study", "python -m cfg_lab.sweep <a>", "seed: 0", environment, [cost, cost])
    page = document(analyse_study(frame, record), {})
    section = html.unescape(page[page.index('<section id="repeat"') :])
    for expected in (
        "python -m cfg_lab.sweep <a>",
        "abc123",
        "deadbeef",
        "torch 2.13.0",
        "seed: 0",
        "18 texts, 8,000 tokens in 40 s, 200 tokens/s, 60 rows per step",
        "240 rows of negatives saved, peak memory 1.65 GB",
        prompts_fingerprint(frame),
    ):
        assert expected in section
    shuffled = frame.sample(frac=1, random_state=0)
    assert prompts_fingerprint(shuffled) == prompts_fingerprint(frame)
    assert prompts_fingerprint(frame.assign(prompt="other")) != prompts_fingerprint(frame)


def test_metrics_are_explained() -> None:
    page = page_of(results({1: 0, 2: 0.3}).assign(mine=1.0))
    section = html.unescape(page[page.index('<section id="metrics"') : page.index('<section id="repeat"')])
    for metric in ("sentiment", "perplexity", "distinct_1"):
        meant = f"{analysis.meaning(metric)}; {analysis.better(metric)} is better"
        assert f"<dt>{metric}</dt><dd>{meant}" in section
    assert "<dt>mine</dt><dd>defined by its config</dd>" in section


def test_classifiers_come_with_their_accuracy() -> None:
    cards = packaged_cards(["sentiment", "perplexity"])
    assert set(cards) == {"sentiment"}
    assert "weights" not in cards["sentiment"]
    shown = cards_html(cards)
    assert re.search(r"0.812 <small>\[0\.\d+, 0\.\d+\]</small>", shown)
    measured = {"all": {"auc": 0.9, "low": 0.8, "high": 0.95, "n": 50}}
    shown = cards_html({"topic": {"what": "<b>", "held_out": measured}})
    assert "0.9 <small>[0.8, 0.95]</small>" in shown
    assert "&lt;b&gt;" in shown
    assert cards_html({}) == ""
    assert "class='card'" not in page_of(results())


# From a sweep, at the command line


def test_the_command_writes_the_page_of_a_sweep_and_prints_its_path(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2", "negatives=empty,own")
    root = tmp_path / "results" / "study"
    capsys.readouterr()
    assert main([str(root)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(root / "report.html")
    page = (root / "report.html").read_text()
    outline(page)
    assert len(data_of(page)["rows"]["cell"]) == len(load_results(root))
    assert main([str(root), "--output", str(tmp_path / "new" / "page.html"), "--tokens", "0"]) == 0
    assert (tmp_path / "new" / "page.html").is_file()
    assert [path.name for path in root.iterdir() if path.name.endswith(".tmp")] == []


def test_a_folder_without_results_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_nothing(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=2")
    (tmp_path / "taken.html").mkdir()
    target = str(tmp_path / "taken.html")
    assert main([str(tmp_path / "results" / "study"), "--output", target]) == 2
    assert f"error: --output: {target!r} cannot be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_damaged_records_do_not_stop_the_page(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=2")
    root = tmp_path / "results" / "study"
    (root / "config.yaml").write_text("{ not yaml")
    (root / "environment.json").write_text("[1")
    for cost in (root / "costs").iterdir():
        cost.write_text("{}")
    page = report(root).read_text()
    outline(page)
    assert "<summary>config.yaml</summary>" in page  # shown as it is
    assert "packages</summary>" not in page


def test_a_page_needs_no_model_library() -> None:
    code = (
        "import sys, cfg_lab.report, cfg_lab.study.notebook_html;"
        "heavy = {'torch', 'transformers', 'hydra', 'matplotlib'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# For notebooks


def test_tokens_inline_show_moves_numbers_and_alternatives() -> None:
    row = results({2: 0}, prompts=1, pieces=True, top=2).iloc[0]
    trace = {name: row[f"trace_{name}"] for name in ("guided", "positive", "negative", "entropy", "scale")}
    tops = {"guided": row["alternatives_guided"]}
    shown = token_html(row["pieces"], trace, tops)
    outline(shown)
    assert "+3 nats" in html.unescape(shown)
    assert "likeliest:  guided0 61 %,  guided1 22 %" in html.unescape(shown)
    assert shown.count("underline solid") == shown.count("underline dotted") == 2
    assert "<script" not in shown
    with pytest.raises(ValueError, match="trace 'guided' has 1 values for 2 pieces"):
        token_html(["a", "b"], {"guided": [0.0]})


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_pieces_stay_text_inline(text: str) -> None:
    shown = token_html(
        [text], {"guided": [-1.0], "positive": [-2.0]}, {"guided": [[{"piece": text, "log_prob": -1}]]}
    )
    outline(shown)
    assert "<img" not in shown
    assert "<script" not in shown
    assert "\x00" not in shown


def test_levels_are_symmetric_and_rise() -> None:
    moves = np.linspace(0, 3, 50)
    steps = [level(move) for move in moves]
    assert steps == sorted(steps) == [level(-move) for move in moves]
    assert steps[0] == 0
    assert steps[-1] == len(LEVELS)
    assert level(math.nan) == 0


def test_a_summary_inline_has_every_cell_and_metric() -> None:
    summary = analysis.summary(results(negatives=("own", "<b>")))
    shown = results_html(summary)
    outline(shown)
    assert shown.count("<tr>") == 1 + len(summary)
    assert "&lt;b&gt;" in shown
    assert "sentiment_low" not in shown
