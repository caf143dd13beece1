"""Tables and figures agree with the results frame that they are made from."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text
from omegaconf import OmegaConf
from PIL import Image

from cfg_lab.analysis import (
    COLUMN,
    PAGE,
    better,
    bounds,
    comparisons,
    heat_map,
    metrics_of,
    pareto,
    pareto_fronts,
    save,
    scale_curves,
    summary,
    trade_off,
    unguided_cells,
    varying,
)
from cfg_lab.analysis.drawing import decimals, ink_for
from cfg_lab.analysis.frame import distinct_prompts, settings_of
from cfg_lab.analysis.stats import holm, mean_interval, paired_difference
from cfg_lab.analysis.style import COLOURS
from cfg_lab.decoding.request import Branch, Request
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance, UnionGuidance
from cfg_lab.guidance.rule import Guidance
from cfg_lab.guidance.schedules import Interval, Linear
from cfg_lab.options import CONFIG
from cfg_lab.study.build import SETTING_GROUPS, _settings  # pyright: ignore[reportPrivateUsage]
from cfg_lab.study.results import load_results
from tests.cli import on, sweep

SCALES, NEGATIVES = (1.0, 1.5, 2.0), ("empty", "own")


def study(seed: int = 0, prompts: int = 10, samples: int = 2, **more: Any) -> pd.DataFrame:
    """A results frame of a grid of scales and negatives. At scale 1 both negatives have the same texts."""
    generator = np.random.default_rng(seed)
    unguided = generator.normal(0, 1, (prompts, samples, 3))
    rows: list[dict[str, Any]] = []
    for negatives in NEGATIVES:
        for scale in SCALES:
            noise = generator.normal(0, 0.5, (prompts, samples, 3)) * (scale - 1)
            effect = (scale - 1) * (1 if negatives == "own" else 0.2)
            for prompt in range(prompts):
                for sample in range(samples):
                    value = unguided[prompt, sample] + noise[prompt, sample]
                    rows.append(
                        {
                            "prompt_id": f"p{prompt}",
                            "prompt": f"Prompt {prompt}",
                            "sample": sample,
                            "completion": f"{negatives}-{scale}-{prompt}-{sample}",
                            "cell": f"{negatives}-{scale}",
                            "model": "smollm2",
                            "negatives": negatives,
                            "negatives.variant": "empty" if negatives == "empty" else None,
                            "negatives.template": None if negatives == "empty" else "default",
                            "guidance": "cfg",
                            "guidance.scale": scale,
                            "seed": 0,
                            "stop": "[]",
                            "text": "some words",
                            "tokens": [1, 2, 3],
                            "negative_ids": [] if scale == 1 else [[1]],
                            "trace_guided": [-1.0, -2.0, -1.5],
                            "pieces": ["some", " ", "words"],
                            "perplexity": math.exp(1.5 + 0.3 * (value[0] + 0.3 * (scale - 1))),
                            "sentiment": 1 / (1 + math.exp(-value[1] - effect)),
                            "words": 30.0 + value[2],
                        }
                        | more
                    )
    return pd.DataFrame(rows)


RESULTS = study()


def one_cell(metrics: dict[str, np.ndarray]) -> pd.DataFrame:
    """A results frame of one cell with one text per prompt."""
    numbers = range(len(next(iter(metrics.values()))))
    ids = [f"p{number}" for number in numbers]
    return pd.DataFrame({"cell": "c", "prompt_id": ids, "prompt": ids, "sample": 0, **metrics})


class TestCells:
    def test_settings_that_differ_between_cells_vary_and_others_do_not(self) -> None:
        assert varying(RESULTS) == ["negatives", "guidance.scale"]
        assert varying(RESULTS[RESULTS["guidance.scale"] == 2]) == ["negatives"]
        assert varying(RESULTS[RESULTS["cell"] == "own-2.0"]) == []

    def test_a_setting_varies_if_it_differs_between_cells_of_the_same_option(self) -> None:
        results = pd.concat([study(), study().assign(cell=lambda frame: frame["cell"] + "b")])
        results["negatives.phrases"] = np.where(results["cell"].str.endswith("b"), "dull", "ugly")
        assert varying(results) == ["negatives", "guidance.scale", "negatives.phrases"]

    def test_lists_and_missing_keys_are_values_too(self) -> None:
        results = study()
        results["sampling.bias"] = [[1, 2] if cell == "own-2.0" else None for cell in results["cell"]]
        assert varying(results) == ["negatives", "guidance.scale", "sampling.bias"]

    def test_metrics_are_the_numeric_columns_that_are_not_settings(self) -> None:
        assert metrics_of(RESULTS) == ["perplexity", "sentiment", "words"]
        assert metrics_of(RESULTS.assign(mine=1)) == ["perplexity", "sentiment", "words", "mine"]

    def test_every_setting_of_the_config_is_recognised_as_a_setting(self) -> None:
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            config = compose("sweep", return_hydra_config=True)
        values = {group: OmegaConf.to_container(config[group], resolve=True) for group in SETTING_GROUPS}
        names = list(_settings(config, values))
        assert settings_of(pd.DataFrame(columns=names)) == names

    def test_every_metric_has_a_direction_or_none_on_purpose(self) -> None:
        assert better("perplexity") == better("toxicity") == better("repeated_4") == "lower"
        assert better("sentiment") == better("distinct_2") == "higher"
        assert better("length") is better("words") is better("stopped") is better("unheard_of") is None


def with_duplicates(results: pd.DataFrame, times: int) -> pd.DataFrame:
    """The results of a study whose prompts are each given several times, under different ids."""
    copies = [results.assign(prompt_id=results["prompt_id"] + f"-{copy}") for copy in range(times)]
    return pd.concat(copies, ignore_index=True)


def as_samples(results: pd.DataFrame, times: int) -> pd.DataFrame:
    """The results of a study that has each text several times, as further samples of its prompt."""
    copies = [results.assign(sample=results["sample"] + 100 * copy) for copy in range(times)]
    return pd.concat(copies, ignore_index=True)


class TestDuplicatePrompts:
    """A prompt that is given several times is one prompt to all statistics."""

    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 99), st.integers(2, 14), st.integers(2, 4), st.booleans())
    def test_duplicates_of_all_prompts_change_no_interval_and_no_p_value(
        self, seed: int, prompts: int, times: int, with_ids: bool
    ) -> None:
        results = study(seed, prompts)
        if with_ids:
            results["positive_ids"] = [[1, int(name[1:])] for name in results["prompt_id"]]
        duplicated = with_duplicates(results, times)
        rounding = {"rtol": 1e-9, "atol": 1e-9}
        for table, ns in (
            (summary, ["texts", "words_n", "sentiment_n", "perplexity_n"]),
            (comparisons, ["n"]),
        ):
            once, several = table(results), table(duplicated)
            assert (several[ns] == times * once[ns]).all(axis=None)
            pd.testing.assert_frame_equal(several.drop(columns=ns), once.drop(columns=ns), **rounding)
            pd.testing.assert_frame_equal(several, table(as_samples(results, times)), **rounding)
        pd.testing.assert_frame_equal(
            pareto(duplicated, "words", "sentiment", "lower"),
            pareto(results, "words", "sentiment", "lower"),
            **rounding,
        )

    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 99), st.dictionaries(st.integers(0, 9), st.integers(1, 3), min_size=1))
    def test_duplicates_of_some_prompts_count_as_samples_of_one_prompt(
        self, seed: int, copies: dict[int, int]
    ) -> None:
        results = study(seed)
        chosen = [results[results["prompt_id"] == f"p{prompt}"] for prompt in copies]
        duplicated, sampled = (
            pd.concat([results, *map(repeat, chosen, copies.values())], ignore_index=True)
            for repeat in (with_duplicates, as_samples)
        )
        sampled = sampled.drop_duplicates(["cell", "prompt_id", "sample"])
        duplicated = duplicated[~duplicated["prompt_id"].str.endswith("-0")]
        pd.testing.assert_frame_equal(summary(duplicated), summary(sampled))
        pd.testing.assert_frame_equal(comparisons(duplicated), comparisons(sampled))

    def test_one_prompt_given_many_times_has_neither_interval_nor_p_value(self) -> None:
        results = study(prompts=1)
        row = comparisons(with_duplicates(results, 20), ["words"]).iloc[-1]
        assert row["n"] == 40
        assert row[["low", "high", "p", "needed"]].isna().all()

    def test_duplicates_have_the_same_context_whatever_their_text_and_negative(self) -> None:
        """A chat template can remove spaces around a text, and models can have different templates."""
        results = pd.DataFrame(
            [
                ("a", "Hi", "sad", "llama", [1, 2]),
                ("b", "Hi ", "dull", "llama", [1, 2]),
                ("c", "Ho", "sad", "llama", [1, 3]),
                ("c", "Ho", "sad", "gpt2", [7, 9]),
                ("d", "Ho", "sad", "gpt2", [7, 9]),
                ("a", "Hi", "sad", "gpt2", [7, 4]),
                ("e", "Hi", "sad", "gpt2", [1, 2]),  # ids mean other tokens in another tokenizer
            ],
            columns=["prompt_id", "prompt", "prompt_negative", "model_name", "positive_ids"],
        )
        assert distinct_prompts(results).tolist() == [0, 0, 1, 1, 1, 0, 2]
        shuffled = results.sample(frac=1, random_state=1)
        assert distinct_prompts(shuffled).tolist() == [[0, 0, 1, 1, 1, 0, 2][row] for row in shuffled.index]
        from_csv = pd.read_csv(io.StringIO(results.to_csv(index=False)))
        assert distinct_prompts(from_csv).tolist() == distinct_prompts(results).tolist()
        by_text = results.drop(columns="positive_ids")
        assert distinct_prompts(by_text).tolist() == [0, 1, 2, 2, 2, 0, 0]

    def test_a_figure_counts_a_prompt_once(self) -> None:
        figures = [scale_curves(frame, "words") for frame in (RESULTS, with_duplicates(RESULTS, 3))]
        notes = [[text.get_text() for text in figure.findobj(Text)] for figure in figures]
        assert any("10 prompts" in note for note in notes[0])
        assert [note for note in notes[1] if "prompts" in note] == [
            note.replace("20", "60") for note in notes[0] if "prompts" in note
        ]


class TestSummary:
    def test_it_is_the_mean_interval_of_each_cell(self) -> None:
        table = summary(RESULTS)
        assert list(table["cell"]) == list(dict.fromkeys(RESULTS["cell"]))
        assert list(table.columns[:4]) == ["cell", "negatives", "guidance.scale", "texts"]
        for row in table.to_dict("records"):
            texts = RESULTS[RESULTS["cell"] == row["cell"]]
            assert row["texts"] == len(texts)
            for metric in ("perplexity", "sentiment", "words"):
                expected = mean_interval(texts[metric].tolist(), texts["prompt_id"].tolist())
                numbers = [row[metric], row[f"{metric}_low"], row[f"{metric}_high"], row[f"{metric}_n"]]
                assert numbers == pytest.approx(
                    [expected.mean, expected.low, expected.high, expected.n], nan_ok=False
                )

    def test_the_order_of_rows_changes_no_number(self) -> None:
        shuffled = summary(RESULTS.sample(frac=1, random_state=1)).set_index("cell")
        ordered = summary(RESULTS).set_index("cell")
        pd.testing.assert_frame_equal(shuffled.loc[ordered.index], ordered)

    def test_unscored_texts_are_not_counted(self) -> None:
        results = study()
        results.loc[(results["cell"] == "own-2.0") & (results["sample"] == 1), "sentiment"] = np.nan
        results.loc[results["cell"] == "own-1.5", "sentiment"] = np.nan
        table = summary(results, ["sentiment"]).set_index("cell")
        assert table["sentiment_n"].to_dict() == {
            **dict.fromkeys(table.index, 20),
            "own-2.0": 10,
            "own-1.5": 0,
        }
        assert math.isnan(table.loc["own-1.5", "sentiment"])

    @settings(deadline=None, max_examples=40)
    @given(
        st.sampled_from(
            [
                ("stopped", 0, 1),
                ("relevance", -1, 1),
                ("perplexity", 1, 90),
                ("guided_log_prob", -9, 0),
                ("reading_ease", -50, 120),
            ]
        ),
        st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1.0]), min_size=2, max_size=8),
    )
    def test_an_interval_lies_within_the_metrics_range_and_holds_the_mean(
        self, values: tuple[str, float, float], shares: list[float]
    ) -> None:
        metric, low, high = values
        least, greatest = bounds(metric)
        texts = one_cell({metric: np.array([low + (high - low) * share for share in shares])})
        row = summary(texts).iloc[0]
        uncut = mean_interval(texts[metric].tolist(), texts["prompt_id"].tolist())
        rounding = 1e-12
        assert least - rounding <= row[f"{metric}_low"] <= row[metric] + rounding
        assert row[metric] - rounding <= row[f"{metric}_high"] <= greatest + rounding
        for end in ("low", "high"):  # only what lies outside of the range is cut off
            assert row[f"{metric}_{end}"] == pytest.approx(np.clip(getattr(uncut, end), least, greatest))

    def test_intervals_of_shares_end_at_0_and_1(self) -> None:
        row = summary(
            one_cell({"stopped": np.array([1.0, 0, 0, 1, 0]), "distinct_3": np.array([1.0, 1, 1, 1, 0.9])})
        )
        assert row["stopped_low"].item() == 0
        assert row["distinct_3_high"].item() == 1

    def test_intervals_of_a_users_metrics_are_not_cut_off(self) -> None:
        """Also if such a metric has the name of one of the lab's metrics, but values outside of its range."""
        values = 100 * np.array([0.1, 0.4, 0.2, 0.9, 0.3])
        table = summary(one_cell({"mine": values, "bleu": values}))
        uncut = mean_interval(values.tolist(), range(len(values)))
        for metric in ("mine", "bleu"):
            assert table[f"{metric}_low"].item() == pytest.approx(uncut.low)
            assert table[f"{metric}_high"].item() == pytest.approx(uncut.high)

    def test_an_unknown_metric_is_named_in_the_error(self) -> None:
        with pytest.raises(InputError, match=r"no metric 'sentimant'.*perplexity, sentiment, words"):
            summary(RESULTS, ["sentimant"])


class TestComparisons:
    def test_each_is_the_paired_difference_from_scale_1_of_the_same_negative(self) -> None:
        table = comparisons(RESULTS, ["sentiment", "words"])
        assert list(table["cell"]) == [f"{n}-{s}" for n in NEGATIVES for s in (1.5, 2.0) for _ in range(2)]
        for row in table.to_dict("records"):
            assert row["baseline"] == f"{row['negatives']}-1.0"
            keys = ["prompt_id", "sample"]
            cell, baseline = (
                RESULTS[RESULTS["cell"] == name].set_index(keys).sort_index()
                for name in (row["cell"], row["baseline"])
            )
            metric = row["metric"]
            expected = vars(
                paired_difference(
                    cell[metric].tolist(), baseline[metric].tolist(), cell.index.get_level_values(0).tolist()
                )
            )
            names = {"difference": "mean", **{name: name for name in expected if name != "mean"}}
            numbers = {name: row[column] for column, name in names.items()}
            assert numbers == pytest.approx(expected, nan_ok=False)

    def test_p_is_corrected_for_the_whole_table(self) -> None:
        table = comparisons(RESULTS)
        assert len(table) == 4 * 3
        assert list(table["p_holm"]) == holm(table["p"].tolist())

    def test_pairs_are_found_by_prompt_and_sample_not_by_the_order_of_rows(self) -> None:
        shuffled = comparisons(RESULTS.sample(frac=1, random_state=1))
        keys = ["cell", "metric"]
        left, right = (frame.set_index(keys).sort_index() for frame in (shuffled, comparisons(RESULTS)))
        pd.testing.assert_frame_equal(left, right)

    def test_only_prompts_that_both_cells_have_are_compared(self) -> None:
        results = study()
        results = results[~((results["cell"] == "own-1.0") & (results["prompt_id"] == "p3"))]
        table = comparisons(results, ["sentiment"]).set_index("cell")
        assert table["n"].to_dict() == {"empty-1.5": 20, "empty-2.0": 20, "own-1.5": 18, "own-2.0": 18}

    def test_different_prompts_with_the_same_id_are_not_paired(self) -> None:
        results = study()
        renamed = results["cell"] == "own-1.0"
        results.loc[renamed, "prompt"] = "Another " + results.loc[renamed, "prompt"]
        assert set(comparisons(results, ["sentiment"], baseline="own-1.0")["n"]) == {0}

    def test_all_others_are_compared_with_a_named_baseline(self) -> None:
        by_settings = comparisons(RESULTS, ["sentiment"], {"guidance.scale": 1, "negatives": "empty"})
        by_id = comparisons(RESULTS, ["sentiment"], "empty-1.0")
        pd.testing.assert_frame_equal(by_settings, by_id)
        assert set(by_id["cell"]) == set(RESULTS["cell"]) - {"empty-1.0"}
        same_texts = by_id.set_index("cell").loc["own-1.0"]
        assert (same_texts["difference"], same_texts["p"], same_texts["needed"]) == (0, 1, math.inf)

    def test_an_unguided_cell_of_another_negative_is_a_baseline_too(self) -> None:
        results = RESULTS[RESULTS["cell"] != "own-1.0"]
        table = comparisons(results, ["sentiment"])
        assert set(table["baseline"]) == {"empty-1.0"}
        pd.testing.assert_series_equal(table["difference"], comparisons(RESULTS, ["sentiment"])["difference"])

    def test_an_unguided_cell_of_another_model_is_no_baseline(self) -> None:
        gpt2 = study(seed=1, model="gpt2")
        gpt2["cell"] += "-gpt2"
        both = pd.concat([RESULTS, gpt2[gpt2["guidance.scale"] > 1]], ignore_index=True)
        table = comparisons(both, ["sentiment"])
        missing = table[table["model"] == "gpt2"]
        assert len(missing) == 4
        assert missing["baseline"].isna().all()
        assert missing[["difference", "p", "p_holm"]].isna().all(axis=None)
        assert not table[table["model"] == "smollm2"].isna().any(axis=None)

    @pytest.mark.parametrize(
        ("baseline", "message"),
        [
            ("nowhere", "baseline is 'nowhere', but the cells are empty-1.0, "),
            ({"guidance.scale": 1}, "fits 2 cells, which differ in negatives"),
            ({"guidance.scale": 7}, "fits no cell; the cells have .*1 or 1.5 or 2"),
            ({"scale": 1}, "names 'scale', but the settings are model, "),
        ],
    )
    def test_a_baseline_that_fits_no_cell_or_several_is_refused(self, baseline: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            comparisons(RESULTS, baseline=baseline)

    def test_without_an_unguided_cell_the_error_asks_for_a_baseline(self) -> None:
        with pytest.raises(InputError, match=r"no cell is unguided.* guidance\.scale=1 .* name a baseline"):
            comparisons(RESULTS[RESULTS["guidance.scale"] > 1])


NEGATIVE = (Branch(ids=(3, 4)),)
CFG = ClassifierFreeGuidance(scale=2)
WAYS_TO_BE_UNGUIDED: dict[str, tuple[tuple[Branch, ...], Guidance | None]] = {
    "scale 1": (NEGATIVE, ClassifierFreeGuidance(scale=1)),
    "scale 1 of another rule": (NEGATIVE, UnionGuidance(scale=1)),
    "no guidance": (NEGATIVE, None),
    "no negatives": ((), CFG),
    "a schedule of share 0": (NEGATIVE, ClassifierFreeGuidance(scale=2, schedule=Linear(start=0, end=0))),
    "a schedule that begins after the last token": (
        NEGATIVE,
        ClassifierFreeGuidance(scale=2, schedule=Interval(begin=8)),
    ),
}


def negatives_that_ran(negatives: tuple[Branch, ...], guidance: Guidance | None) -> list[list[int]]:
    """The column `negative_ids` of a text of 8 tokens."""
    request = Request(positive=(1, 2), negatives=negatives, guidance=guidance, max_new_tokens=8)
    return [list(branch.ids) for branch in request.branches]


def sweep_of(requests: dict[str, tuple[tuple[Branch, ...], Guidance | None]]) -> pd.DataFrame:
    """A results frame with one cell per request; no column but `negative_ids` tells whether it is guided."""
    template = RESULTS[RESULTS["cell"] == "own-2.0"]
    frames = [
        template.assign(
            **{"cell": name, "guidance": name, "guidance.scale": 2.0},
            negative_ids=[negatives_that_ran(*request)] * len(template),
        )
        for name, request in requests.items()
    ]
    return pd.concat(frames, ignore_index=True)


class TestUnguidedCells:
    @pytest.mark.parametrize("way", WAYS_TO_BE_UNGUIDED)
    def test_a_cell_is_unguided_for_whatever_reason_no_negative_ran(self, way: str) -> None:
        results = sweep_of({way: WAYS_TO_BE_UNGUIDED[way], "guided": (NEGATIVE, CFG)})
        assert unguided_cells(results) == {way}
        table = comparisons(results, ["sentiment"])
        assert table[["cell", "baseline"]].to_numpy().tolist() == [["guided", way]]

    def test_no_cell_at_scale_1_is_required(self) -> None:
        results = RESULTS[RESULTS["guidance.scale"] == 2].copy()
        results["negative_ids"] = [[] if cell == "empty-2.0" else [[1]] for cell in results["cell"]]
        assert comparisons(results, ["words"])[["cell", "baseline"]].to_numpy().tolist() == [
            ["own-2.0", "empty-2.0"]
        ]

    @pytest.mark.parametrize(
        "guidance",
        [CFG, ClassifierFreeGuidance(scale=0), ClassifierFreeGuidance(scale=2, schedule=Interval(begin=7))],
        ids=["scale 2", "scale 0", "last step only"],
    )
    def test_a_cell_is_guided_if_a_negative_ran_at_any_step(self, guidance: Guidance) -> None:
        assert unguided_cells(sweep_of({"cell": (NEGATIVE, guidance)})) == set()

    def test_a_cell_is_guided_if_a_negative_ran_in_any_text(self) -> None:
        """A prompt can lack a negative, so that only some texts of a cell are guided."""
        results = sweep_of({"unguided": ((), CFG), "partly guided": ((), CFG)})
        last = results.index[-1]
        results.at[last, "negative_ids"] = [[3, 4]]
        assert unguided_cells(results) == {"unguided"}
        assert unguided_cells(results.iloc[::-1]) == {"unguided"}

    def test_of_several_unguided_cells_the_one_with_most_settings_in_common_is_the_baseline(self) -> None:
        results = study()
        results["negative_ids"] = [
            [] if scale == 1 or negatives == "empty" else [[1]]
            for scale, negatives in zip(results["guidance.scale"], results["negatives"], strict=True)
        ]
        assert unguided_cells(results) == {"empty-1.0", "empty-1.5", "empty-2.0", "own-1.0"}
        table = comparisons(results, ["sentiment"])
        assert dict(zip(table["cell"], table["baseline"], strict=True)) == {
            "own-1.5": "own-1.0",
            "own-2.0": "own-1.0",
        }

    @pytest.mark.parametrize("column", [None, "[]", math.nan])
    def test_without_lists_of_negatives_the_error_names_load_results(self, column: Any) -> None:
        results = RESULTS.drop(columns="negative_ids") if column is None else study(negative_ids=column)
        with pytest.raises(InputError, match=r"'negative_ids'.* cfg_lab\.load_results"):
            comparisons(results)
        # A named baseline does not need to know which cells are guided.
        assert set(comparisons(results, ["words"], baseline="own-1.0")["baseline"]) == {"own-1.0"}

    def test_load_results_tells_which_cells_are_unguided(self, tmp_path: Path, tiny_folder: Path) -> None:
        """From the command line to the table of comparisons. The schedule's share is 0 or 1 at every step."""
        sweep(
            *on(tmp_path, tiny_folder),
            "guidance=linear",
            "guidance.schedule.start=0,1",
            "guidance.schedule.end=${guidance.schedule.start}",
            "guidance.scale=1,2",
            "negatives=none,own",
        )
        results = load_results(tmp_path / "results" / "study")
        settings = ["guidance.schedule.start", "guidance.scale", "negatives"]
        cells = results.drop_duplicates("cell").set_index("cell")[settings]
        assert len(cells) == 8
        (guided,) = set(cells.index) - unguided_cells(results)
        assert cells.loc[guided].tolist() == [1, 2, "own"]
        table = comparisons(results, ["length"])
        assert table["cell"].tolist() == [guided]
        (baseline,) = table["baseline"]
        assert cells.loc[baseline].tolist() == [1, 1, "own"]


class TestPareto:
    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8))
    def test_a_cell_is_on_the_front_unless_another_is_better(self, points: list[tuple[int, int]]) -> None:
        """Against the definition, with ties. With a single prompt, every resample is the data."""
        results = pd.DataFrame(
            {
                "cell": f"c{number}",
                "prompt_id": "p",
                "prompt": "P",
                "sample": 0,
                "perplexity": float(x),
                "sentiment": float(y),
            }
            for number, (x, y) in enumerate(points)
        )
        front = pareto(results, "perplexity", "sentiment")
        expected = [not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points) for x, y in points]
        assert front["on_front"].tolist() == expected
        assert front["probability"].tolist() == [float(on_front) for on_front in expected]

    def test_several_pairs_give_what_each_pair_gives(self) -> None:
        pairs = [("perplexity", "sentiment"), ("sentiment", "perplexity")]
        for (x, y), front in pareto_fronts(RESULTS, pairs):
            pd.testing.assert_frame_equal(front, pareto(RESULTS, x, y))

    def test_a_negated_metric_with_the_opposite_direction_gives_the_same_front(self) -> None:
        negated = RESULTS.assign(perplexity=-RESULTS["perplexity"])
        front = pareto(RESULTS, "perplexity", "sentiment")
        front_of_negated = pareto(negated, "perplexity", "sentiment", x_better="higher")
        columns = ["on_front", "probability"]
        pd.testing.assert_frame_equal(front[columns], front_of_negated[columns])
        assert 0 < front["on_front"].sum() < len(front)

    def test_cells_with_the_same_texts_have_the_same_place_on_the_front(self) -> None:
        front = pareto(RESULTS, "perplexity", "sentiment").set_index("cell")
        assert front.loc["own-1.0"].tolist() == front.loc["empty-1.0"].tolist()

    def test_differences_between_prompts_do_not_make_the_front_uncertain(self) -> None:
        """One cell is better on every prompt, by far less than prompts differ from each other."""
        results = study(prompts=8, samples=1)
        results = results[results["cell"].isin(["own-1.0", "own-2.0"])].copy()
        level = results["prompt_id"].str[1:].astype(float)
        results["perplexity"] = 100 * level + (results["cell"] == "own-2.0")
        results["sentiment"] = 100 * level - (results["cell"] == "own-2.0")
        front = pareto(results, "perplexity", "sentiment").set_index("cell")
        assert front["probability"].to_dict() == {"own-1.0": 1.0, "own-2.0": 0.0}

    def test_two_cells_that_differ_by_noise_alone_are_equally_likely_on_the_front(self) -> None:
        """In one metric they are equal; the mean of the probabilities is over 40 studies."""
        generator = np.random.default_rng(3)
        shares: list[float] = []
        for _ in range(40):
            frame = study(prompts=12, samples=1)
            frame = frame[frame["cell"].isin(["own-1.0", "own-2.0"])].copy()
            frame["perplexity"] = 1.0
            frame["sentiment"] = generator.normal(0, 1, len(frame))
            shares += pareto(frame, "perplexity", "sentiment")["probability"].tolist()
        assert np.mean(shares) == pytest.approx(0.5, abs=0.01)

    def test_a_cell_without_a_mean_is_not_on_the_front(self) -> None:
        results = study()
        results.loc[results["cell"] == "own-2.0", "sentiment"] = np.nan
        front = pareto(results, "perplexity", "sentiment").set_index("cell")
        assert front.loc["own-2.0", ["on_front", "probability"]].tolist() == [False, 0.0]
        assert front["on_front"].any()

    def test_a_metric_without_a_direction_needs_one(self) -> None:
        with pytest.raises(InputError, match="y_better is None, and 'words' has no direction"):
            pareto(RESULTS, "perplexity", "words")
        assert pareto(RESULTS, "perplexity", "words", y_better="higher")["on_front"].any()


class TestFigures:
    @pytest.mark.parametrize(
        "draw",
        [
            lambda results, width: scale_curves(results, "sentiment", width),
            lambda results, width: trade_off(results, "perplexity", "sentiment", "words", width),
            lambda results, width: heat_map(results, "perplexity", "negatives", "guidance.scale", width),
        ],
        ids=["curves", "trade-off", "heat map"],
    )
    @pytest.mark.parametrize("width", [COLUMN, PAGE])
    def test_a_figure_has_the_requested_width_and_contains_everything_drawn(
        self, draw: Any, width: float
    ) -> None:
        figure: Figure = draw(RESULTS, width)
        figure.draw_without_rendering()
        assert figure.get_figwidth() == width
        whole = figure.get_tightbbox()
        assert whole.x0 >= -0.01
        assert whole.y0 >= -0.01
        assert whole.x1 <= width + 0.01
        assert whole.y1 <= figure.get_figheight() + 0.01

    def test_curves_show_the_summary(self) -> None:
        (axes,) = scale_curves(RESULTS, "words").axes
        table = summary(RESULTS, ["words"])
        assert [line.get_label() for line in axes.lines] == ["empty", "own"]
        for line, band, negatives in zip(axes.lines, axes.collections, NEGATIVES, strict=True):
            rows = table[table["negatives"] == negatives]
            assert line.get_xydata() == pytest.approx(rows[["guidance.scale", "words"]].to_numpy())
            extent = band.get_datalim(axes.transData)
            assert (extent.y0, extent.y1) == pytest.approx(
                (rows["words_low"].min(), rows["words_high"].max())
            )

    def test_if_the_scale_does_not_vary_the_x_axis_shows_another_setting(self) -> None:
        results = RESULTS[RESULTS["guidance.scale"] == 2]
        (axes,) = scale_curves(results, "words").axes
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["empty", "own"]
        assert axes.get_xlabel() == "negatives"
        assert axes.lines[0].get_ydata() == pytest.approx(summary(results)["words"].to_numpy())

    def test_the_curve_of_a_single_cell_is_one_point(self) -> None:
        results = RESULTS[RESULTS["cell"] == "own-2.0"]
        (axes,) = scale_curves(results, "words").axes
        assert [tick.get_text() for tick in axes.get_xticklabels()] == [""]
        assert axes.lines[0].get_ydata() == pytest.approx([results["words"].mean()])

    def test_every_cell_of_a_trade_off_is_labelled_and_labels_do_not_overlap(self) -> None:
        figure = trade_off(RESULTS, "perplexity", "sentiment")
        figure.draw_without_rendering()
        (axes,) = figure.axes
        labels = [text for text in axes.texts if "prompts" not in text.get_text()]
        # The two cells at scale 1 have the same means, so they share one label.
        assert sorted(text.get_text() for text in labels) == ["1", "1.5", "1.5", "2", "2"]
        boxes = [text.get_window_extent() for text in labels]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])

    def test_the_front_is_drawn_only_if_both_metrics_have_a_direction(self) -> None:
        (axes,) = trade_off(RESULTS, "perplexity", "sentiment").axes
        (drawn,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
        front = pareto(RESULTS, "perplexity", "sentiment").query("on_front")
        expected = front.sort_values("perplexity")[["perplexity", "sentiment"]].to_numpy()
        assert drawn.get_xydata() == pytest.approx(expected)
        (axes,) = trade_off(RESULTS, "words", "sentiment").axes
        assert "Pareto front" not in [line.get_label() for line in axes.lines]

    def test_a_heat_map_writes_mean_and_interval_in_each_cell(self) -> None:
        (axes,) = heat_map(RESULTS, "words", "negatives", "guidance.scale").axes
        texts = {text.get_text() for text in axes.texts}
        for row in summary(RESULTS, ["words"]).to_dict("records"):
            assert f"{row['words']:.1f}" in texts
            assert f"{row['words_low']:.1f} – {row['words_high']:.1f}" in texts

    def test_a_heat_map_of_more_than_two_settings_is_refused(self) -> None:
        gpt2 = study(seed=1, model="gpt2")
        gpt2["cell"] += "-gpt2"
        both = pd.concat([RESULTS, gpt2])
        with pytest.raises(InputError, match="differ also in model"):
            heat_map(both, "words", "negatives", "guidance.scale")
        with pytest.raises(InputError, match="rows is 'negative', which is no setting"):
            heat_map(RESULTS, "words", "negative", "guidance.scale")

    def test_unscored_cells_leave_gaps(self) -> None:
        results = study()
        results.loc[results["cell"] == "own-2.0", "words"] = np.nan
        results.loc[results["negatives"] == "empty", "words"] = 3.0
        (curves,) = scale_curves(results, "words").axes
        empty, own = curves.lines
        assert empty.get_ydata() == pytest.approx([3, 3, 3])
        assert np.isnan(own.get_ydata()).tolist() == [False, False, True]
        (trade,) = trade_off(results, "words", "sentiment", size="words").axes
        assert sorted(label.get_text() for label in trade.texts if len(label.get_text()) < 4) == sorted(
            ["1", "1.5", "2", "1", "1.5", "2"]
        )
        (grid,) = heat_map(results, "words", "negatives", "guidance.scale").axes
        assert [text.get_text() for text in grid.texts].count("nan") == 1

    def test_saved_files_have_embedded_fonts_and_the_same_bytes_every_time(self, tmp_path: Path) -> None:
        first = save(scale_curves(RESULTS, "words"), tmp_path / "new" / "a.b")
        again = save(scale_curves(RESULTS, "words"), tmp_path / "again")
        assert [file.name for file in first] == ["a.b.png", "a.b.svg", "a.b.pdf"]
        for file, same_file in zip(first, again, strict=True):
            assert file.read_bytes() == same_file.read_bytes()
        with Image.open(first[0]) as image:
            assert image.width == round(COLUMN * 300)
        pdf = first[2].read_bytes()
        assert b"/FontFile2" in pdf  # TrueType, embedded
        assert b"/Type3" not in pdf

    def test_a_notebook_shows_a_figure_in_its_size_and_twice_the_resolution(self) -> None:
        data, metadata = DisplayFormatter().format(scale_curves(RESULTS, "sentiment"))
        width = metadata["image/png"]["width"]
        assert width == round(COLUMN * 150)
        assert Image.open(io.BytesIO(data["image/png"])).width == pytest.approx(2 * width, abs=1)

    def test_the_users_style_and_backend_do_not_change(self) -> None:
        code = (
            "import sys; from tests.test_analysis import RESULTS, scale_curves; import matplotlib as m;"
            "style = lambda: {key: m.rcParams[key] for key in m.rcParams if key != 'backend'};"
            "m.rcParams['font.size'] = 20; before = style(); scale_curves(RESULTS, 'words');"
            "assert style() == before; assert 'matplotlib.pyplot' not in sys.modules"
        )
        root = Path(__file__).parent.parent
        subprocess.run([sys.executable, "-c", code], check=True, cwd=root)

    def test_colour_blind_readers_can_tell_the_first_four_colours_apart(self) -> None:
        """By the model of Machado, Oliveira & Fernandes 2009 at severity 1; distances in CIELAB."""
        kinds = {
            "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
            "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
            "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
        }
        linear = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS[:4]]) ** 2.2
        for kind, matrix in kinds.items():
            seen = _lab(np.clip(linear @ np.array(matrix).T, 0, 1))
            distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
            assert min(distances) > 12, kind

    def test_text_is_white_on_dark_backgrounds_only(self) -> None:
        assert ink_for("#000000") == ink_for("#1D4468") == "white"
        assert ink_for("#FFFFFF") == ink_for("#9FC3CC") != "white"

    def test_the_largest_number_has_three_significant_digits(self) -> None:
        assert [decimals([value]) for value in (0.0123, 0.9, 4.2, 31.0, 512.0, 0.0)] == [4, 3, 2, 1, 0, 2]


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB coordinates of linear RGB colours, both [colours, 3]."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.cbrt(linear @ to_xyz.T / [0.9505, 1.0, 1.089])
    x, y, z = xyz.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def test_tables_need_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, cfg_lab.analysis as a;"
        "heavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
