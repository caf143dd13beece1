"""The command `choose`: its budget, its search, and what it recommends."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cfg_lab.analysis.stats import paired_difference
from cfg_lab.choose.budget import Budget, in_words, parse_budget
from cfg_lab.choose.evidence import Answer
from cfg_lab.choose.output import overrides_of
from cfg_lab.choose.run import run
from cfg_lab.choose.settings import ChooseSettings
from cfg_lab.choose.verdict import BEST, PLAIN, decide
from cfg_lab.errors import InputError
from cfg_lab.report.write import report
from cfg_lab.study.config import compose_config
from cfg_lab.study.results import load_results
from cfg_lab.suggest.cells import CellPlan
from cfg_lab.suggest.evidence import HalfValues, compare
from tests.cli import sweep

PROMPTS = [f"{n}" for n in range(40)]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2 m ", 120), ("0.5s", 0.5)]
)
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["10", 10, "0m", "-5m", "10 minutes", None, "m"])
def test_a_wrong_budget_is_named(text: Any) -> None:
    with pytest.raises(InputError, match=r"budget must be a time such as 90s, 10m or 1\.5h, got"):
        parse_budget(text)


def test_the_parts_of_a_budget_sum_up_to_what_was_used() -> None:
    budget = Budget(seconds=100, began=time.monotonic() - 50)
    budget.finish("first")
    budget.finish("second")
    assert 50 <= budget.parts["first"] <= sum(budget.parts.values()) <= budget.used
    assert [in_words(seconds) for seconds in (45.2, 580, 3900)] == ["45 s", "9 min 40 s", "1 h 5 min"]


def test_a_step_that_would_end_too_late_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    budget = Budget(seconds=600, began=now)
    stop, late = budget.stop_before(100), budget.stop_before(0)
    assert late()
    assert not stop()
    now += 40
    assert not stop()  # 40 seconds are used, and the next 40 end before 100
    now += 40
    assert stop()  # another 40 would end after 100
    now += 5
    assert not stop()  # a short step fits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rules": ["cgf"]}, "rules must be a list of some of .*got"),
        ({"rules": []}, "rules must be a list"),
        ({"scales": [5, 1]}, "the smaller one first"),
        ({"scales": [1, 2, 3]}, "scales must be the smallest and the largest scale"),
        ({"limits": "perplexity<=2"}, "limits must be a list"),
        ({"trials": 0}, "trials must be a whole number of at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_named(change: Mapping[str, Any], message: str) -> None:
    right: dict[str, Any] = {
        "rules": ["cfg"],
        "scales": [1, 5],
        "limits": [],
        "trials": 4,
        "batch": 2,
        "search_prompts": 4,
    }
    with pytest.raises(InputError, match=message):
        ChooseSettings(**{**right, **change})


def verdict_of(sign: int = 1, **gains: float) -> Any:
    """What is decided if methods gain so much over plain decoding on both halves, with little noise.

    A gain is in the good direction of the aim; with sign -1, low values are good.
    """
    noise = np.random.default_rng(0).normal(0, 0.02, (1 + len(gains), len(PROMPTS)))
    names = [PLAIN, BEST, *(name.replace("_", " ") for name in gains if name != "best")]
    by_name = {"best guided": gains["best"], **{n.replace("_", " "): g for n, g in gains.items()}, PLAIN: 0.0}
    rewards = {name: sign * (0.5 + by_name[name] + noise[row]) for row, name in enumerate(names)}
    half = HalfValues(rewards=rewards, divergences=rewards, prompts=PROMPTS)
    plans = [CellPlan(name=name, negatives="none", instruction="instruction" in name) for name in names]
    plans = [
        plan
        if not plan.instruction
        else CellPlan(
            name=plan.name,
            negatives="custom",
            values={"template": "{negative}", "phrases": "a"},
            instruction=True,
        )
        for plan in plans
    ]
    rows = compare(plans, half, half, subject=BEST)
    return decide(rows, column="sentiment", sign=sign, prompts=(40, 40), prices={})


@pytest.mark.parametrize("sign", [1, -1])
def test_guidance_is_recommended_only_if_it_is_better_than_everything_simple(sign: int) -> None:
    both = verdict_of(sign, best=0.3, instruction=0.1)
    assert both.method == BEST
    assert both.sentences[0].startswith("Shown on 40 held-out prompts: guidance is better than plain")
    nothing = verdict_of(sign, best=0.0, instruction=0.0)
    assert nothing.method == PLAIN
    assert nothing.sentences[0].startswith("Not shown on 40 held-out prompts: that guidance is better than")
    cheaper = verdict_of(sign, best=0.1, instruction=0.3)
    assert cheaper.method == "instruction"
    assert "an instruction in the prompt" in cheaper.sentences[0]
    assert cheaper.sentences[0].startswith("Not shown")  # it says that first
    assert verdict_of(sign, best=0.3, instruction=-0.2).method == BEST
    assert verdict_of(sign, best=-0.3, instruction=-0.3).method == PLAIN
    assert verdict_of(sign, best=-0.3, instruction=0.0, instruction_not=0.2).method == "instruction not"


def test_without_an_effect_guidance_is_seldom_recommended() -> None:
    """The error of the whole decision, in a simulation with noise alone: below 5 % but for chance."""
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        rewards = {name: generator.normal(0, 1, 30) for name in (PLAIN, BEST)}
        half = HalfValues(rewards=rewards, divergences=rewards, prompts=PROMPTS[:30])
        rows = compare([CellPlan(name=n, negatives="none") for n in rewards], half, half, subject=BEST)
        wrong += decide(rows, column="x", sign=1, prompts=(30, 30), prices={}).method == BEST
    assert wrong <= 12  # one side of 5 %: 5 expected, and a binomial count above 12 has probability 0.002


def test_prices_and_limits_are_said() -> None:
    rewards = {PLAIN: np.arange(40.0), BEST: np.arange(40.0) + 1}
    half = HalfValues(rewards=rewards, divergences=rewards, prompts=PROMPTS)
    rows = compare([CellPlan(name=n, negatives="none") for n in rewards], half, half, subject=BEST)
    price = paired_difference(list(np.arange(40) * 1.5), list(np.arange(40.0)), PROMPTS)
    verdict = decide(
        rows, column="x", sign=1, prompts=(9, 40), prices={"perplexity": price}, broken=["perplexity<=1.2x"]
    )
    assert any("Price" in one and "perplexity +9.75" in one for one in verdict.sentences)
    assert verdict.sentences[-1].endswith("the best guided one is beyond perplexity<=1.2x.")


QUICK = [
    "metrics=[perplexity,kl_from_plain,length]",
    "aim=perplexity",
    "tracking=none",
    "report=false",
    "origins=[]",
    "candidates=[grim,dull]",
    "rules=[cfg,union]",
    "limits=[]",
    "trials=4",
    "batch=2",
    "search_prompts=4",
    "samples=2",
    "max_new_tokens=6",
]


def choose(folder: Path, model: Path, prompts: Path, *overrides: str) -> Answer:
    """Run the command in this process, with much time."""
    config = compose_config(
        "choose",
        [
            f"model.name={model}",
            "prompts=file",
            f"prompts.path={prompts}",
            f"results_root={folder}",
            "budget=10h",
            *QUICK,
            *overrides,
        ],
    )
    return run(config, time.monotonic())


def write_prompts(path: Path, held_out_negative: str = "bad") -> Path:
    """Prompts of both halves. Those of the held-out half have the given negative."""
    from cfg_lab.prompts import Prompt
    from cfg_lab.prompts.halves import half_of

    lines = [
        json.dumps(
            {
                "text": f"Topic {n}",
                "negative": held_out_negative
                if half_of(Prompt(id="", text=f"Topic {n}")) == "held_out"
                else "bad",
            }
        )
        for n in range(16)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_command_recommends_by_held_out_prompts_and_its_command_makes_the_same_texts(
    tmp_path: Path, tiny_folder: Path
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl")
    answer = choose(tmp_path / "a", tiny_folder, prompts)
    folder = tmp_path / "a" / "choose"
    content = yaml.safe_load((folder / "choice.yaml").read_text())
    assert content["conclusion"] == list(answer.verdict.sentences)
    assert {row["method"] for row in content["methods"]} >= {
        "plain",
        "best guided",
        "runner-up",
        "instruction",
    }
    assert len(list((folder / "searches").glob("*/trials/*.json"))) == 4
    # The page says what the command says, in its head and in a section, and not something else.
    page = unescape(report(folder).read_text(encoding="utf-8"))
    head, section = page.split("<section id='recommendation'")
    assert f"Recommended:</b> {content['recommended']['setting']}." in head
    assert all(sentence in section for sentence in content["conclusion"])
    assert content["recommended"]["command"] in section
    results = load_results(folder)
    assert set(results["prompts.half"]) == {"held_out"}
    for plan, cell in zip(answer.plans, answer.study.cells, strict=True):
        (row,) = sweep(
            f"model.name={tiny_folder}",
            "prompts=file",
            f"prompts.path={prompts}",
            "prompts.half=held_out",
            *QUICK[:1],
            *QUICK[2:4],
            *QUICK[-2:],
            "top=0",
            f"results_root={tmp_path / 'again'}",
            f"name={plan.name.replace(' ', '_')}",
            *overrides_of(plan),
        )
        again = load_results(tmp_path / "again" / plan.name.replace(" ", "_"))
        texts = results[results["cell"] == cell.id].sort_values(["prompt_id", "sample"])["text"].tolist()
        assert again.sort_values(["prompt_id", "sample"])["text"].tolist() == texts, plan.name
        assert row["texts"] == len(texts)


def test_held_out_prompts_have_no_part_in_the_choice_and_a_second_run_goes_on(
    tmp_path: Path, tiny_folder: Path
) -> None:
    first = choose(tmp_path / "a", tiny_folder, write_prompts(tmp_path / "p.jsonl"))
    other = choose(tmp_path / "b", tiny_folder, write_prompts(tmp_path / "q.jsonl", "something else"))
    assert [plan.values for plan in first.plans] == [plan.values for plan in other.plans]
    assert [plan.scale for plan in first.plans] == [plan.scale for plan in other.plans]
    more = choose(tmp_path / "a", tiny_folder, tmp_path / "p.jsonl", "trials=8")
    folder = tmp_path / "a" / "choose"
    assert len(list((folder / "searches").glob("*/trials/*.json"))) == 8
    fresh = choose(tmp_path / "c", tiny_folder, tmp_path / "p.jsonl", "trials=8")
    assert more.verdict == fresh.verdict


def test_a_budget_that_is_used_up_searches_nothing_and_still_gives_the_evidence(
    tmp_path: Path, tiny_folder: Path
) -> None:
    answer = choose(tmp_path / "a", tiny_folder, write_prompts(tmp_path / "p.jsonl"), "budget=0.001s")
    folder = tmp_path / "a" / "choose"
    assert not list((folder / "searches").glob("*/trials/*.json"))
    assert {row.method for row in answer.rows} >= {"plain", "best guided", "instruction"}
    assert (folder / "choice.yaml").is_file()


def test_what_is_wrong_is_refused_before_anything_is_written(tmp_path: Path, tiny_folder: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl")
    for override, message in {
        "aim=lenght": "did you mean length",
        "budget=ten": "budget must be a time",
        "rules=[cfg,nothing]": "rules must be a list",
        'limits=["perplexity<2"]': "no limit",
        "prompts.half=selection": "leave it null",
        "samples=0": "samples must be a whole number",
    }.items():
        with pytest.raises(InputError, match=message):
            choose(tmp_path / "a", tiny_folder, prompts, override)
        assert not (tmp_path / "a").exists(), override
