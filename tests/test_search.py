"""The core of a search: it finds a known optimum, can be interrupted, and does not believe itself."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from cfg_lab.errors import InputError, StoreError
from cfg_lab.metrics import Length, Metric
from cfg_lab.metrics.column_info import ColumnInfo
from cfg_lab.metrics.text import Text
from cfg_lab.search.both_halves import Finalist, both_halves
from cfg_lab.search.loop import Problem, search
from cfg_lab.search.objectives import Objectives, parse_objectives
from cfg_lab.search.proposals import SamplerName, SearchSettings, ranked
from cfg_lab.search.space import Choice, Interval, Parameter, Steps, texts
from cfg_lab.search.trials import Evaluation, TrialFolder
from cfg_lab.study.store import Store
from hydra_plugins.cfg_lab_launcher.search_space import read_space

SPACE: tuple[Parameter, ...] = (
    Interval(key="guidance.scale", low=1, high=5),
    Choice(key="guidance", options=("cfg", "union", "apg")),
    Choice(key="negatives", options=("own", "empty")),
)
BEST = {"guidance.scale": 3.1, "guidance": "union", "negatives": "own"}


@dataclasses.dataclass(frozen=True)
class FakeSentiment:
    """A metric that is never called: it only says which columns there are."""

    columns = MappingProxyType({"sentiment": ColumnInfo(meaning="positive", better="higher", bounds=(0, 1))})

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        raise NotImplementedError


METRICS: list[Metric] = [FakeSentiment(), Length()]


def problem(objective: Sequence[str] = ("+sentiment",), **settings: Any) -> Problem:
    return Problem(
        space=SPACE,
        objectives=parse_objectives(list(objective), METRICS),
        settings=SearchSettings(**settings),
    )


def quality(point: Mapping[str, str]) -> float:
    """A function whose only maximum, 0.9, is at BEST."""
    peak, height = {"cfg": (2.2, 0.8), "union": (3.1, 0.9), "apg": (4.0, 0.85)}[point["guidance"]]
    loss = 0.1 * (float(point["guidance.scale"]) - peak) ** 2
    return height - loss - 0.1 * (point["negatives"] == "empty")


def length(point: Mapping[str, str]) -> float:
    """Grows with the scale, so that it is in conflict with `quality` below the best scale."""
    return 10 * float(point["guidance.scale"])


def evaluate(number: int, points: Sequence[Mapping[str, str]]) -> list[Evaluation]:
    return [Evaluation(means={"sentiment": quality(point), "length": length(point)}) for point in points]


def folder(path: Path) -> TrialFolder:
    return TrialFolder(store=Store(path), search="test")


@pytest.mark.parametrize("seed", range(5))
def test_a_search_finds_the_known_optimum(tmp_path: Path, seed: int) -> None:
    trials = search(problem(seed=seed), folder(tmp_path), 40, evaluate)
    best = ranked(SPACE, problem().objectives, trials)[0]
    assert {key: best.texts[key] for key in ("guidance", "negatives")} == {
        "guidance": "union",
        "negatives": "own",
    }
    assert float(best.texts["guidance.scale"]) == pytest.approx(3.1, abs=0.3)


def test_tpe_finds_more_than_drawing_evenly_does(tmp_path: Path) -> None:
    def best(sampler: SamplerName, seed: int) -> float:
        place = folder(tmp_path / f"{sampler}{seed}")
        trials = search(problem(sampler=sampler, seed=seed), place, 40, evaluate)
        return max(trial.evaluation.means["sentiment"] for trial in trials)

    assert min(best("tpe", seed) for seed in range(3)) > np.mean([best("random", s) for s in range(3)])


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize(
    "objective", [["+sentiment"], ["+sentiment", "-length"], ["+sentiment", "length<=25"]]
)
def test_an_interrupted_search_makes_the_trials_of_an_uninterrupted_one(
    tmp_path: Path, sampler: SamplerName, objective: list[str]
) -> None:
    """The search is killed in every batch, before and between the writes of its trials."""
    made = problem(objective, sampler=sampler, batch=4, startup=4)

    def with_limits(number: int, points: Sequence[Mapping[str, str]]) -> list[Evaluation]:
        return [
            dataclasses.replace(one, violations=made.objectives.violations(one.means, one.means))
            for one in evaluate(number, points)
        ]

    def dying(after: int) -> Callable[..., list[Evaluation]]:
        def run(number: int, points: Sequence[Mapping[str, str]]) -> list[Evaluation]:
            if number >= after:
                raise KeyboardInterrupt
            return with_limits(number, points)

        return run

    whole = search(made, folder(tmp_path / "whole"), 14, with_limits)
    place = folder(tmp_path / "killed")
    for after in (0, 4, 8):
        with pytest.raises(KeyboardInterrupt):
            search(made, place, 14, dying(after))
    for number in (7, 6):  # as if the kill had come between the writes of a batch
        (place.path / "trials" / f"{number:04}.json").unlink()
    assert search(made, place, 14, with_limits) == whole
    assert search(made, place, 14, dying(0)) == whole, "a finished search evaluates nothing"


def test_fewer_trials_are_the_first_ones_of_more(tmp_path: Path) -> None:
    made = problem(batch=8)
    few = search(made, folder(tmp_path / "a"), 11, evaluate)
    more = search(made, folder(tmp_path / "a"), 20, evaluate)
    assert more[:11] == few
    assert search(made, folder(tmp_path / "b"), 20, evaluate) == more


def test_another_seed_makes_other_trials(tmp_path: Path) -> None:
    first, second = (search(problem(seed=seed), folder(tmp_path / str(seed)), 8, evaluate) for seed in (0, 1))
    assert [trial.texts for trial in first] != [trial.texts for trial in second]


def test_a_limit_is_respected(tmp_path: Path) -> None:
    """The optimum lies beyond the limit, so the best that is allowed lies at the limit."""
    made = problem(["+sentiment", "length<=25"])

    def limited(number: int, points: Sequence[Mapping[str, str]]) -> list[Evaluation]:
        return [
            Evaluation(means=one.means, violations=made.objectives.violations(one.means, one.means))
            for one in evaluate(number, points)
        ]

    trials = search(made, folder(tmp_path), 40, limited)
    best = ranked(SPACE, made.objectives, trials)
    assert all(trial.evaluation.means["length"] <= 25 for trial in best)
    assert any(trial.evaluation.means["length"] > 25 for trial in trials)
    assert best[0].evaluation.means["sentiment"] > 0.9 - 0.1 * 0.6**2 - 0.05
    asked_late = [float(trial.texts["guidance.scale"]) for trial in trials[20:]]
    assert np.mean(np.array(asked_late) <= 2.5) > 0.6, "the limit does not guide the search"


def test_a_failed_trial_is_kept_and_never_chosen(tmp_path: Path) -> None:
    def failing(number: int, points: Sequence[Mapping[str, str]]) -> list[Evaluation]:
        return [
            Evaluation(failure="no score") if point["guidance"] == "union" else one
            for point, one in zip(points, evaluate(number, points), strict=True)
        ]

    trials = search(problem(), folder(tmp_path), 24, failing)
    assert any(trial.evaluation.failure for trial in trials)
    assert all(trial.texts["guidance"] != "union" for trial in ranked(SPACE, problem().objectives, trials))


def test_the_front_has_no_dominated_trial(tmp_path: Path) -> None:
    made = problem(["+sentiment", "-length"])
    trials = search(made, folder(tmp_path), 40, evaluate)
    front = ranked(SPACE, made.objectives, trials)
    values = [(trial.evaluation.means["sentiment"], -trial.evaluation.means["length"]) for trial in trials]
    for trial in front:
        mine = trial.evaluation.means["sentiment"], -trial.evaluation.means["length"]
        assert not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in values)
    assert len(front) >= 4
    best_scale = float(front[0].texts["guidance.scale"])
    assert best_scale == pytest.approx(3.1, abs=0.5)


def test_a_damaged_trial_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path)
    search(problem(), place, 8, evaluate)
    (place.path / "trials" / "0003.json").write_text('{"number"')
    with pytest.raises(StoreError, match=r"0003\.json is damaged"):
        place.read()


# The halves of the prompts


def finalists_of(**cells: int) -> list[Finalist]:
    """The finalists of `noisy_results`: role -> number of the cell."""
    return [
        Finalist(
            role=role,
            label=role,
            trial=None,
            cells={half: f"{cell} {half}" for half in ("selection", "held_out")},
        )
        for role, cell in cells.items()
    ]


def noisy_results(true_means: Sequence[float], prompts: int, random: np.random.Generator) -> pd.DataFrame:
    """Texts of cells on two halves of prompts. Prompts differ in difficulty, and each text has noise."""
    frames: list[pd.DataFrame] = []
    for half, ease in (("selection", 0.0), ("held_out", 0.3)):
        difficulty = random.normal(ease, 0.2, prompts)
        for cell, mean in enumerate(true_means):
            names = [f"{half} {number}" for number in range(prompts)]
            values = mean + difficulty + random.normal(0, 0.2, prompts)
            frames.append(
                pd.DataFrame(
                    {"cell": f"{cell} {half}", "prompt_id": names, "prompt": names, "sample": 0}
                    | {"sentiment": values, "negative_ids": [[]] * prompts}
                )
            )
    return pd.concat(frames, ignore_index=True)


def test_the_held_out_estimate_is_unbiased_and_the_selection_estimate_is_optimistic() -> None:
    """Simulated searches: the best of 12 cells that are all as good as plain decoding, the last cell."""
    random = np.random.default_rng(0)
    objectives = Objectives(aims=parse_objectives("+sentiment", METRICS).aims)
    gains: dict[str, list[float]] = {"selection": [], "held_out": [], "optimism": []}
    covered: list[bool] = []
    for _ in range(60):
        results = noisy_results([0.0] * 13, 24, random)
        means = results.groupby("cell")["sentiment"].mean()
        best = max(range(12), key=lambda cell: means[f"{cell} selection"])
        finalists = finalists_of(chosen=best, plain=12)
        of_finalists = {cell for one in finalists for cell in one.cells.values()}
        results = results[results["cell"].isin(of_finalists)]
        numbers = both_halves(results, finalists, objectives)[0]["numbers"]["sentiment"]
        for half in ("selection", "held_out"):
            gains[half].append(numbers["gain"][half]["difference"])
        gains["optimism"].append(numbers["optimism"]["difference"])
        held_out = numbers["gain"]["held_out"]
        covered.append(held_out["low"] <= 0 <= held_out["high"])
    error = {name: np.std(values) / math.sqrt(len(values)) for name, values in gains.items()}
    assert abs(np.mean(gains["held_out"])) < 3 * error["held_out"]
    assert np.mean(gains["selection"]) > 0.05
    assert np.mean(gains["optimism"]) == pytest.approx(
        np.mean(gains["selection"]), abs=3 * error["held_out"] + 1e-9
    )
    assert np.mean(covered) > 0.85


def test_the_optimism_of_a_cell_that_was_not_chosen_is_covered_by_its_interval() -> None:
    """Also for an aim whose low values are good, where the signs of gains and of their ends change."""
    random = np.random.default_rng(1)
    objectives = parse_objectives(["-sentiment"], METRICS)
    covered: list[bool] = []
    for _ in range(60):
        finalists = finalists_of(chosen=0, plain=1)
        rows = both_halves(noisy_results([-0.1, 0.0], 24, random), finalists, objectives)
        optimism = rows[0]["numbers"]["sentiment"]["optimism"]
        assert optimism["low"] < optimism["difference"] < optimism["high"]
        covered.append(optimism["low"] <= 0 <= optimism["high"])
    assert np.mean(covered) > 0.85


# Grammar


def space_of(*lines: str) -> tuple[tuple[Parameter, ...], tuple[str, ...]]:
    return read_space(OverridesParser.create().parse_overrides(list(lines)))


@pytest.mark.parametrize(
    ("line", "parameter"),
    [
        ("x=interval(1,5)", Interval(key="x", low=1, high=5)),
        ("x=int(interval(1,5))", Interval(key="x", low=1, high=5, whole=True)),
        ("x=tag(int,interval(1,5))", Interval(key="x", low=1, high=5, whole=True)),
        ("x=tag(log,interval(0.1,5))", Interval(key="x", low=0.1, high=5, log=True)),
        ("x=int(tag(log,interval(1,64)))", Interval(key="x", low=1, high=64, whole=True, log=True)),
        ("x=tag(log,int,interval(1,64))", Interval(key="x", low=1, high=64, whole=True, log=True)),
        ("x=range(1,5)", Steps(key="x", numbers=("1", "2", "3", "4"))),
        ("x=range(5,1,-2)", Steps(key="x", numbers=("3", "5"))),
        ("x=range(0.5,2,0.5)", Steps(key="x", numbers=("0.5", "1.0", "1.5"))),
        ("x=float(range(1,3))", Steps(key="x", numbers=("1.0", "2.0"))),
        ("x=a,b,a", Choice(key="x", options=("a", "b"))),
        ("x=choice(a,b)", Choice(key="x", options=("a", "b"))),
        ("x=sort(3,1,2)", Choice(key="x", options=("1", "2", "3"))),
        ("+x.y=[a],[b,c]", Choice(key="+x.y", options=("[a]", "[b,c]"))),
        ("x='a, b',c", Choice(key="x", options=("'a, b'", "c"))),
    ],
)
def test_every_form_of_the_grammar_is_a_parameter(line: str, parameter: Parameter) -> None:
    assert space_of(line, "y=1", "trials=3", "objective=[a]") == ((parameter,), ("y=1",))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("x=shuffle(a,b)", r"'x=shuffle\(a,b\)' has shuffle"),
        ("x=shuffle(range(1,4))", r"'x=shuffle\(range\(1,4\)\)' has shuffle"),
        ("x=tag(hot,choice(a,b))", r".* has the tag hot; the tags of a search are int and log"),
        ("x=tag(log,range(1,4))", r".* has the tag log; .* both for interval"),
        ("x=tag(odd,interval(1,2))", r".* has the tag odd"),
        ("x=range(1,1)", r"'x=range\(1,1\)' has no values"),
        ("x=interval(5,1)", r"x=interval\(5,1\) needs two finite ends, the smaller one first"),
        ("x=interval(1,1)", r"x=interval\(1,1\) needs two finite ends"),
        ("x=interval(1,inf)", r"x=interval\(1,inf\) needs two finite ends"),
        ("x=tag(log,interval(0,5))", r".* has the tag log, so its ends must be above 0"),
        ("x=tag(int,interval(0.5,5))", r".* whole numbers, so its ends must be whole numbers"),
        ("trials=10,20", r"'trials=10,20' gives trials several values"),
        ("objective=a,b", r"'objective=a,b' gives objective several values, .* brackets"),
    ],
)
def test_a_form_that_means_nothing_is_refused_by_name(line: str, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}"):
        space_of(line)


def test_a_later_override_replaces_an_earlier_one() -> None:
    assert space_of("x=1,2", "y=1", "x=3") == ((), ("y=1", "x=3"))
    assert space_of("x=3", "x=1,2") == ((Choice(key="x", options=("1", "2")),), ())


def test_values_are_written_as_a_person_would() -> None:
    scale = Interval(key="x", low=1, high=5)
    assert [scale.text(value) for value in (1.0, 2.345678, 4.999999)] == ["1", "2.35", "5"]
    assert Interval(key="x", low=0.001, high=1, log=True).text(0.012345) == "0.0123"
    assert Interval(key="x", low=0.0501, high=0.0999).text(0.0501) == "0.0501"
    assert Interval(key="x", low=1, high=9, whole=True).text(3) == "3"
    assert texts(SPACE, {"guidance.scale": 2.0, "guidance": "cfg", "negatives": "own"}) == {
        "guidance.scale": "2",
        "guidance": "cfg",
        "negatives": "own",
    }


@pytest.mark.parametrize(("low", "high"), [(1.0, 5.0), (0.0, 1.0), (-3.0, 40.0), (0.001, 0.0011)])
def test_a_rounded_number_stays_inside_and_near(low: float, high: float) -> None:
    interval = Interval(key="x", low=low, high=high)
    for value in np.linspace(low, high, 57):
        text = float(interval.text(float(value)))
        assert low <= text <= high
        assert abs(text - value) <= 0.006 * (high - low)


# Objectives


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sentiment", ["+sentiment"]),
        (["+sentiment", "-length"], ["+sentiment", "-length"]),
        (["sentiment", "length <= 1.2x"], ["+sentiment", "length<=1.2x"]),
        (["sentiment", "length>=20"], ["+sentiment", "length>=20"]),
    ],
)
def test_objectives_are_read(value: Any, expected: list[str]) -> None:
    assert parse_objectives(value, METRICS).texts == expected


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "objective has no value"),
        ([], "objective has no value"),
        (7, "objective must be the name of a column, .* got 7"),
        (["sentimant"], r".* 'sentimant' .*did you mean sentiment\?"),
        (["length"], r"objective is 'length', a column of which neither .* write \+length or -length"),
        (["sentiment", "+sentiment"], ".* which names sentiment twice"),
        (["length<=6"], ".* which only has limits"),
        (["sentiment", "length<6"], ".* 'length<6', which is no limit"),
        (["sentiment", "length<=much"], ".* 'length<=much', which is no limit"),
        (["sentiment", "length<=nan"], ".* 'length<=nan', which is no limit"),
        (["sentiment", "width<=6"], ".* gives the column 'width'"),
        (["sentiment", "length<=-1x"], ".* a factor above 0"),
    ],
)
def test_what_is_no_objective_is_refused_by_name(value: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}"):
        parse_objectives(value, METRICS)


def test_a_limit_is_measured_from_its_bound() -> None:
    objectives = parse_objectives(["sentiment", "length<=1.5x", "length>=4"], METRICS)
    means, plain = {"length": 7.0}, {"length": 4.0}
    assert objectives.violations(means, plain) == {"length<=1.5x": 1.0, "length>=4": -3.0}


@pytest.mark.parametrize(
    ("setting", "value"),
    [("sampler", "grid"), ("batch", 0), ("batch", 2.5), ("seed", -1), ("startup", True), ("batch", "x")],
)
def test_a_wrong_setting_is_named(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^hydra\.sweeper\.{setting} must be .*got {value!r}"):
        SearchSettings(**{setting: value})


def test_files_of_trials_are_json_that_others_can_read(tmp_path: Path) -> None:
    place = folder(tmp_path)
    (trial, *_) = search(problem(), place, 8, evaluate)
    content = json.loads((place.path / "trials" / "0000.json").read_text())
    assert content["texts"] == trial.texts
    assert content["evaluation"]["means"] == trial.evaluation.means
