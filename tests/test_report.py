"""The page: what it claims, what is in it, and that no text can break it."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import re
import subprocess
import sys
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cfg_lab import analysis
from cfg_lab.errors import InputError
from cfg_lab.metrics import packaged_cards
from cfg_lab.report import document
from cfg_lab.report.__main__ import main
from cfg_lab.report.axes import cells_of
from cfg_lab.report.cards import cards_html
from cfg_lab.report.document import as_script_text
from cfg_lab.report.findings import Change, Finding, compare, findings
from cfg_lab.report.record import Record, prompts_fingerprint
from cfg_lab.report.roles import roles_of
from cfg_lab.report.sentences import Scope, headline, price
from cfg_lab.report.write import report
from cfg_lab.study.formats import interval, signed
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
    """Tags, headings, ids and references of a page; raises where tags are not balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.links: list[str] = []
        self.landmarks: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag in {"main", "nav", "header", "footer", "aside"}:
            self.landmarks.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.references += given.get("aria-labelledby", "").split()
        self.links += [given[name] for name in ("src", "href", "action") if name in given]

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
    return document(frame, Record("study", command="python -m cfg_lab.sweep"), {}, **budgets)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def packs_of(page: str) -> list[dict[str, Any]]:
    texts = re.findall(r'<script type="text/plain" id="pack-\d+">(.*?)</script>', page)
    return [json.loads(gzip.decompress(base64.b64decode(text))) for text in texts]


def answer_of(page: str) -> str:
    """The words of the answer, without tags."""
    section = page[page.index('<section id="answer"') : page.index("<noscript>")]
    return html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", "", section)))


def findings_of(frame: pd.DataFrame) -> Finding:
    """What is found of the only aim."""
    cells, roles = cells_of(frame), roles_of(analysis.metrics_of(frame))
    summary = analysis.summary(frame)
    (found,) = findings(frame, summary, cells, roles, compare(frame, summary, cells, roles))
    return found


# What it claims


def test_a_clear_win_is_shown_with_its_price() -> None:
    said = answer_of(page_of(results({1: 0, 1.5: 0.1, 2: 0.3}, price=2)))
    assert "scale 2 has the highest sentiment" in said
    assert "That is shown: p < 0.001 after correction, on 20 prompts." in said
    price = re.search(r"Its price: perplexity from ([\d.]+) to ([\d.]+)", said)
    assert price
    assert [float(number) for number in price.groups()] == pytest.approx([5, 7], abs=0.1)
    assert "Of 2 guided cells, sentiment is shown better in 2 beside unguided decoding." in said
    assert "chosen on the same texts" in said
    assert "Holm's method over the 6 comparisons" in said


def test_the_best_cell_stands_beside_those_like_it_but_for_the_negative() -> None:
    frame = results({1: 0, 2: 0.1, 3: 0.2}, negatives=("empty", "own", "bos"), noise=0.02)
    frame.loc[(frame["negatives"] == "own") & (frame["guidance.scale"] == 3), "sentiment"] += 0.3
    text = answer_of(page_of(frame))
    table = analysis.comparisons(
        frame[frame["guidance.scale"] == 3], ["sentiment"], baseline={"negatives": "own"}
    ).set_index("negatives")
    for other in ("empty", "bos"):
        row = table.loc[other]
        difference = f"{signed(-row['difference'])} {interval(-row['high'], -row['low'])}"
        assert f"With negatives {other} instead, all else the same, sentiment is" in text
        assert difference in text
    assert text.count("is shown: p < 0.001 after correction.") == 2
    found = findings_of(frame)
    for rival in found.rivals:
        row = table.loc[rival.value]
        assert rival.change.p_holm == pytest.approx(min(1, 6 * row["p_holm"]))  # the best of six guided cells
        assert rival.change.difference == pytest.approx(-row["difference"])
    assert "instead" not in answer_of(page_of(results({1: 0, 2: 0.3})))  # nothing but the scale varies


def test_no_difference_says_how_many_prompts_would_settle_it() -> None:
    frame = results({1: 0, 2: 0.004}, noise=0.1)
    said = answer_of(page_of(frame))
    assert "That is shown" not in said
    assert "20 prompts could" in said
    assert re.search(r"About [\d,]+ prompts? would settle", said)


def test_worse_is_said() -> None:
    said = answer_of(page_of(results({1: 0, 2: -0.3})))
    assert "No guided cell beats unguided decoding on sentiment" in said
    assert "Guidance makes it worse" in said
    assert "That is shown" not in said


def test_cells_with_other_baselines_are_judged_by_their_own() -> None:
    """A second model that is better without guidance does not hide what guidance does to the first."""
    weak, strong = results({1: 0, 2: 0.3}), results({1: 0.4, 2: 0.2})
    strong["model"], strong["cell"] = "large", "large-" + strong["cell"]
    strong["completion"] = "large-" + strong["completion"]
    said = answer_of(page_of(pd.concat([weak, strong], ignore_index=True)))
    assert "is without guidance, in model large, scale 1" in said
    assert re.search(
        r"best guided cell, model tiny, scale 2 is at 0.[78]\d* against 0.[45]\d* in its own", said
    )
    assert "shown better, p < 0.001" in said
    assert "No guided cell" not in said


def test_a_cell_without_scores_of_an_aim_is_named() -> None:
    frame = results({1: 0, 2: 0.3, 3: 0.5})
    frame.loc[frame["guidance.scale"] == 3, "sentiment"] = math.nan
    assert "for want of a score of sentiment: scale 3." in answer_of(page_of(frame))
    assert "for want" not in answer_of(page_of(results({1: 0, 2: 0.3, 3: 0.5})))


def test_a_best_scale_at_the_edge_of_what_was_tried_is_said() -> None:
    beyond = "The best has the largest scale tried"
    assert beyond in answer_of(page_of(results({1: 0, 2: 0.1, 3: 0.4})))
    assert beyond not in answer_of(page_of(results({1: 0, 1.5: 0.1, 2: 0.4, 3: 0.1})))
    assert "smallest scale tried" in answer_of(page_of(results({1: 0, 1.5: 0.4, 2: 0.2, 3: 0.1})))
    assert "scale tried" not in answer_of(page_of(results({1: 0, 2: -0.2, 3: -0.4})))


def test_more_questions_than_the_prompts_can_answer_are_said() -> None:
    scales = {1 + number / 4: 0.0 for number in range(10)}
    asked = results(scales, prompts=12, samples=1, negatives=("empty", "own", "bos", "last_token"))
    assert "12 prompts cannot show anything among 108 comparisons" in answer_of(page_of(asked))
    fewer = asked[asked["negatives"] != "bos"]
    assert "cannot show anything" not in answer_of(page_of(fewer))


def test_the_same_cell_tells_its_price_once() -> None:
    frame = results({1: 0, 2: 0.3}, price=2)
    said = answer_of(page_of(frame.assign(joy=frame["sentiment"], leakage=-frame["sentiment"])))
    assert said.count("Its price:") == 1
    assert "at the same price" in said


def test_prompts_of_two_sets_that_share_ids_are_told_apart() -> None:
    one, other = results({1: 0, 2: 0.3}, prompts=3), results({1: 0, 2: 0.3}, prompts=3, seed=1)
    other["prompt"], other["cell"] = "Another " + other["prompt"], "other-" + other["cell"]
    other["prompts"], one["prompts"] = "mine", "openers"
    other["completion"] = "other-" + other["completion"]
    data = data_of(page := page_of(pd.concat([one, other], ignore_index=True)))
    assert "6 prompts" in page
    assert data["prompts"]["text"] == [*one["prompt"].unique(), *other["prompt"].unique()]
    for cell, prompt in zip(data["rows"]["cell"], data["rows"]["prompt"], strict=True):
        assert data["cells"]["id"][cell].startswith("other-") == (prompt >= 3)


def test_what_is_not_decoded_yet_is_said(tmp_path: Path, tiny_folder: Path) -> None:
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
    assert "price in" in html.unescape(page)


def test_without_a_baseline_no_difference_is_claimed() -> None:
    said = answer_of(page_of(results({1.5: 0.1, 2: 0.4})))
    assert "scale 2 has the highest sentiment" in said
    assert "add guidance.scale=1 to the sweep" in said
    assert "shown" not in said.replace("not shown", "")


def test_a_metric_without_scores_is_named_and_left_out() -> None:
    frame = results()
    frame["sentiment"] = math.nan
    page = page_of(frame)
    assert "No text has a score of sentiment." in answer_of(page)
    assert "sentiment" not in [metric["name"] for metric in data_of(page)["metrics"]]


def test_single_missing_scores_do_no_harm() -> None:
    frame = results({1: 0, 2: 0.3})
    frame.loc[::7, "sentiment"] = math.nan
    assert "That is shown" in answer_of(page_of(frame))


def test_one_prompt_gives_no_interval() -> None:
    said = answer_of(page_of(results(prompts=1)))
    assert "There is one prompt" in said
    beside = answer_of(page_of(results(negatives=("empty", "own"), prompts=1)))
    assert re.search(
        r"With negatives \w+ instead, .* One prompt cannot tell a difference from chance", beside
    )
    assert "could not show: p" not in beside
    assert "That is shown" not in said
    assert "[no interval]" in said
    assert "nan" not in said


@pytest.mark.parametrize("seed", range(6))
def test_shown_is_said_exactly_where_the_corrected_p_is_below_5_percent(seed: int) -> None:
    """Over effects from none to clear."""
    frame = results({1: 0, 2: 0.02 * seed}, noise=0.08, seed=seed, prompts=12)
    table = analysis.comparisons(frame, metrics=["sentiment", "perplexity", "distinct_1"])
    row = table[table["metric"] == "sentiment"].iloc[0]
    said = answer_of(page_of(frame))
    assert ("That is shown" in said) == (row["p_holm"] < 0.05 and row["difference"] > 0)


def change(**values: Any) -> Change:
    usual = {
        "metric": "sentiment", "cell": 1, "baseline": 0, "mean": 0.7, "base": 0.6, "difference": 0.1,
        "low": 0.01, "high": 0.19, "p": 0.03, "p_holm": 0.2, "effect": 0.4, "needed": 41.2,
    }  # fmt: skip
    return Change(**{**usual, **values})


def finding(one: Change, *prices: Change, compute: float = math.nan) -> Finding:
    return Finding(one.metric, one.cell, one.mean, one, prices, (), compute, (), (), (), "", 3)


SCOPE = Scope(labels=("scale 1", "scale 2"), prompts=16, texts=64, planned=64, comparisons=9)


def test_what_does_not_survive_correction_is_a_lead() -> None:
    said = headline(finding(change()), SCOPE)
    assert "a lead, not a result" in said
    assert "p = 0.03 alone, but p = 0.2 among 9 comparisons" in said
    assert "About <b>42 prompts</b>" in said


def test_unknown_and_infinite_numbers_are_not_printed() -> None:
    unknown = change(low=math.nan, high=math.nan, p=math.nan, p_holm=math.nan, needed=math.inf)
    said = headline(finding(unknown, change(metric="perplexity", p=0.5, p_holm=1.0)), SCOPE)
    assert "nan" not in said
    assert "inf" not in said
    assert "cannot be said" in said


def test_the_price_keeps_shown_leads_and_nothing_apart() -> None:
    said = price(
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
    assert re.search(r"Its price:</b> 2.16 times the computation and perplexity from .*", said)
    assert re.search(r"a lead only: toxicity from .* It also improves distinct_1 .* lead only: vendi", said)
    assert "For relevance no difference that 16 prompts could show." in said


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
    assert "no cell can be said to win" in answer_of(page_of(frame))


def test_cells_are_named_by_what_varies() -> None:
    cells = cells_of(results({1: 0, 2.5: 0}, negatives=("empty", "own"), prompts=2))
    assert cells.labels[-1] == "negatives own, scale 2.5"
    assert len(set(cells.labels)) == 4


# What is in it


def test_the_page_is_well_formed_and_fetches_nothing() -> None:
    found = outline(page_of(results(pieces=True, top=3, negatives=("empty", "own"))))
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(found.headings, found.headings[1:], strict=False))
    assert len(found.ids) == len(set(found.ids))
    assert set(found.references) <= set(found.ids)
    assert {"main", "nav", "header", "footer"} <= set(found.landmarks)
    assert all(link.startswith(("#", "data:")) for link in found.links)


def test_the_policy_lets_this_script_run_and_no_other() -> None:
    page = page_of(results())
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
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
    assert len(data["completions"]["text"]) == frame["completion"].nunique()  # scale 1 is kept once
    for row in range(len(frame)):
        number = data["rows"]["completion"][row]
        pack = packs[data["completions"]["pack"][number]]
        text = pack["texts"][str(number)]
        cell = data["cells"]["id"][data["rows"]["cell"][row]]
        prompt = data["prompts"]["id"][data["rows"]["prompt"][row]]
        chosen = (frame["cell"] == cell) & (frame["prompt_id"] == prompt)
        kept = frame[chosen & (frame["sample"] == data["rows"]["sample"][row])].iloc[0]
        assert data["completions"]["text"][number] == kept["text"]
        assert [pack["pieces"][place] for place in text["pieces"]] == kept["pieces"]
        assert text["guided"] == [round(-100 * value) for value in kept["trace_guided"]]
        assert text["negative"] == [None if math.isnan(v) else 500 for v in kept["trace_negative"]]
        assert pack["pieces"][text["top_guided"][0][2]] == " guided1"
        assert text["top_guided"][0][3] == 150


def test_every_number_of_the_figures_is_the_analysis() -> None:
    frame = results({1: 0, 2: 0.2}, negatives=("empty", "own"))
    data, summary = data_of(page_of(frame)), analysis.summary(frame).set_index("cell")
    front = analysis.pareto(frame, "perplexity", "sentiment", x_better="lower", y_better="higher").set_index(
        "cell"
    )
    shown = next(one for one in data["fronts"] if {one["x"], one["y"]} == {"perplexity", "sentiment"})
    for metric in data["metrics"]:
        for place, cell in enumerate(data["cells"]["id"]):
            assert metric["mean"][place] == pytest.approx(summary.loc[cell, metric["name"]], rel=1e-4)
            assert metric["n"][place] == summary.loc[cell, f"{metric['name']}_n"]
    for place, cell in enumerate(data["cells"]["id"]):
        assert shown["on"][place] == int(front.loc[cell, "on_front"])
        assert shown["probability"][place] == pytest.approx(front.loc[cell, "probability"], abs=1e-3)


def test_results_without_pieces_say_so_and_work() -> None:
    data = data_of(page_of(results()))
    assert data["tokens"]["kept"] is False
    assert data["tokens"]["note"] == ""
    assert set(data["completions"]["pack"]) == {-1}


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
    none = page_of(frame, token_budget=0)
    assert packs_of(none) == []
    assert data_of(none)["tokens"]["note"].endswith("write it with a larger --tokens to have them.")
    cells = len(small["cells"]["id"])
    kept = list(zip(small["rows"]["prompt"], small["rows"]["sample"], strict=True))
    assert all(kept.count(one) == cells for one in set(kept))  # there for all cells or for none


def test_five_hundred_texts_are_a_small_file() -> None:
    frame = results({1: 0, 1.5: 0.1, 2: 0.2, 3: 0.3}, prompts=31, samples=4, pieces=True, top=5)
    assert len(page_of(frame).encode()) < 1_000_000


def test_the_record_says_how_to_repeat_it() -> None:
    frame = results(prompts=3)
    environment = {"python": "3.11.7", "git_revision": "deadbeef", "packages": {"torch": "2.13.0"}}
    cost = {"model": "smollm2", "device": "cpu", "texts": 9, "tokens": 4000, "seconds": 20.0, "steps": 50}
    cost |= {"rows": 3000, "negative_rows_saved": 120, "peak_memory": 1_650_000_000}
    record = Record("study", "python -m cfg_lab.sweep <a>", "seed: 0", environment, [cost, cost])
    page = document(frame, record, {})
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
        assert f"<dt>{metric}</dt><dd>{meant}</dd>" in section
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


def test_a_folder_without_results_and_a_file_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_damaged_records_do_not_stop_the_page(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=2")
    root = tmp_path / "results" / "study"
    (root / "config.yaml").write_text("{ not yaml")
    (root / "environment.json").write_text("[1")
    for cost in (root / "costs").iterdir():
        cost.write_text("{}")
    assert report(root).is_file()


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
