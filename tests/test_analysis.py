"""Tables and figures say what the texts say."""

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
    save,
    scale_curves,
    summary,
    trade_off,
    varying,
)
from cfg_lab.analysis.drawing import decimals, legible_on
from cfg_lab.analysis.frame import settings_of
from cfg_lab.analysis.stats.estimates import holm, mean_interval, paired_difference
from cfg_lab.analysis.style import COLOURS
from cfg_lab.errors import InputError
from cfg_lab.options import CONFIG
from cfg_lab.study.build import SETTING_GROUPS, _settings  # pyright: ignore[reportPrivateUsage]

SCALES, NEGATIVES = (1.0, 1.5, 2.0), ("empty", "own")


def study(seed: int = 0, prompts: int = 10, samples: int = 2, **more: Any) -> pd.DataFrame:
    """What `load_results` gives of a grid of scales and negatives; scale 1 is the same for both negatives."""
    generator = np.random.default_rng(seed)
    plain = generator.normal(0, 1, (prompts, samples, 3))
    rows: list[dict[str, Any]] = []
    for negatives in NEGATIVES:
        for scale in SCALES:
            noise = generator.normal(0, 0.5, (prompts, samples, 3)) * (scale - 1)
            effect = (scale - 1) * (1 if negatives == "own" else 0.2)
            for prompt in range(prompts):
                for sample in range(samples):
                    value = plain[prompt, sample] + noise[prompt, sample]
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
    """A text of each prompt."""
    numbers = range(len(next(iter(metrics.values()))))
    return pd.DataFrame(
        {"cell": "c", "prompt_id": [f"p{i}" for i in numbers], "prompt": "P", "sample": 0, **metrics}
    )


class TestCells:
    def test_settings_that_differ_between_cells_vary_and_others_do_not(self) -> None:
        assert varying(RESULTS) == ["negatives", "guidance.scale"]
        assert varying(RESULTS[RESULTS["guidance.scale"] == 2]) == ["negatives"]
        assert varying(RESULTS[RESULTS["cell"] == "own-2.0"]) == []

    def test_a_setting_that_varies_within_its_groups_choice_is_kept(self) -> None:
        results = pd.concat([study(), study().assign(cell=lambda frame: frame["cell"] + "b")])
        results["negatives.phrases"] = np.where(results["cell"].str.endswith("b"), "dull", "ugly")
        assert varying(results) == ["negatives", "guidance.scale", "negatives.phrases"]

    def test_lists_and_missing_keys_are_values_too(self) -> None:
        results = study()
        results["sampling.bias"] = [[1, 2] if cell == "own-2.0" else None for cell in results["cell"]]
        assert varying(results) == ["negatives", "guidance.scale", "sampling.bias"]

    def test_metrics_are_the_columns_of_numbers_that_are_no_settings(self) -> None:
        assert metrics_of(RESULTS) == ["perplexity", "sentiment", "words"]
        assert metrics_of(RESULTS.assign(mine=1)) == ["perplexity", "sentiment", "words", "mine"]

    def test_every_setting_of_the_config_is_known_as_one(self) -> None:
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            config = compose("sweep", return_hydra_config=True)
        plain = {group: OmegaConf.to_container(config[group], resolve=True) for group in SETTING_GROUPS}
        names = list(_settings(config, plain))
        assert settings_of(pd.DataFrame(columns=names)) == names

    def test_every_metric_has_a_direction_or_none_on_purpose(self) -> None:
        assert better("perplexity") == better("toxicity") == better("repeated_4") == "lower"
        assert better("sentiment") == better("distinct_2") == "higher"
        assert better("length") is better("words") is better("stopped") is better("unheard_of") is None


class TestSummary:
    def test_it_is_the_mean_interval_of_each_cell(self) -> None:
        table = summary(RESULTS)
        assert list(table["cell"]) == list(dict.fromkeys(RESULTS["cell"]))
        assert list(table.columns[:4]) == ["cell", "negatives", "guidance.scale", "texts"]
        for row in table.to_dict("records"):
            texts = RESULTS[RESULTS["cell"] == row["cell"]]
            assert row["texts"] == len(texts)
            for metric in ("perplexity", "sentiment", "words"):
                one = mean_interval(texts[metric].tolist(), texts["prompt_id"].tolist())
                found = [row[metric], row[f"{metric}_low"], row[f"{metric}_high"], row[f"{metric}_n"]]
                assert found == pytest.approx([one.mean, one.low, one.high, one.n])

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
        free = mean_interval(texts[metric].tolist(), texts["prompt_id"].tolist())
        rounding = 1e-12
        assert least - rounding <= row[f"{metric}_low"] <= row[metric] + rounding
        assert row[metric] - rounding <= row[f"{metric}_high"] <= greatest + rounding
        for end in ("low", "high"):  # nothing but the impossible is cut off
            assert row[f"{metric}_{end}"] == pytest.approx(np.clip(getattr(free, end), least, greatest))

    def test_intervals_of_shares_end_at_0_and_1(self) -> None:
        row = summary(
            one_cell({"stopped": np.array([1.0, 0, 0, 1, 0]), "distinct_3": np.array([1.0, 1, 1, 1, 0.9])})
        )
        assert row["stopped_low"].item() == 0
        assert row["distinct_3_high"].item() == 1

    def test_intervals_of_ones_own_metrics_are_left_alone(self) -> None:
        """Also where one has the name of the lab's, but other values."""
        values = 100 * np.array([0.1, 0.4, 0.2, 0.9, 0.3])
        table = summary(one_cell({"mine": values, "bleu": values}))
        free = mean_interval(values.tolist(), range(len(values)))
        for metric in ("mine", "bleu"):
            assert table[f"{metric}_low"].item() == pytest.approx(free.low)
            assert table[f"{metric}_high"].item() == pytest.approx(free.high)

    def test_metrics_that_are_not_there_are_named(self) -> None:
        with pytest.raises(InputError, match=r"no metric 'sentimant'.*perplexity, sentiment, words"):
            summary(RESULTS, ["sentimant"])


class TestComparisons:
    def test_each_is_the_paired_difference_to_its_own_negatives_scale_1(self) -> None:
        table = comparisons(RESULTS, ["sentiment", "words"])
        assert list(table["cell"]) == [f"{n}-{s}" for n in NEGATIVES for s in (1.5, 2.0) for _ in range(2)]
        for row in table.to_dict("records"):
            assert row["baseline"] == f"{row['negatives']}-1.0"
            keys = ["prompt_id", "sample"]
            cell, base = (
                RESULTS[RESULTS["cell"] == name].set_index(keys).sort_index()
                for name in (row["cell"], row["baseline"])
            )
            metric = row["metric"]
            one = paired_difference(
                cell[metric].tolist(), base[metric].tolist(), cell.index.get_level_values(0).tolist()
            )
            assert {
                name: row[name] for name in ("low", "high", "n", "p", "effect", "needed")
            } == pytest.approx({name: value for name, value in vars(one).items() if name != "mean"})
            assert row["difference"] == pytest.approx(one.mean)

    def test_p_is_adjusted_for_the_whole_table(self) -> None:
        table = comparisons(RESULTS)
        assert len(table) == 4 * 3
        assert list(table["p_holm"]) == holm(table["p"].tolist())

    def test_pairs_are_found_by_prompt_and_sample_not_by_the_order_of_rows(self) -> None:
        shuffled = comparisons(RESULTS.sample(frac=1, random_state=1))
        keys = ["cell", "metric"]
        left, right = (frame.set_index(keys).sort_index() for frame in (shuffled, comparisons(RESULTS)))
        pd.testing.assert_frame_equal(left, right)

    def test_only_prompts_that_both_have_are_compared(self) -> None:
        results = study()
        results = results[~((results["cell"] == "own-1.0") & (results["prompt_id"] == "p3"))]
        table = comparisons(results, ["sentiment"]).set_index("cell")
        assert table["n"].to_dict() == {"empty-1.5": 20, "empty-2.0": 20, "own-1.5": 18, "own-2.0": 18}

    def test_equal_ids_of_other_prompts_are_no_pairs(self) -> None:
        results = study()
        others = results["cell"] == "own-1.0"
        results.loc[others, "prompt"] = "Another " + results.loc[others, "prompt"]
        assert set(comparisons(results, ["sentiment"], baseline="own-1.0")["n"]) == {0}

    def test_all_others_are_compared_with_a_named_baseline(self) -> None:
        by_settings = comparisons(RESULTS, ["sentiment"], {"guidance.scale": 1, "negatives": "empty"})
        by_id = comparisons(RESULTS, ["sentiment"], "empty-1.0")
        pd.testing.assert_frame_equal(by_settings, by_id)
        assert set(by_id["cell"]) == set(RESULTS["cell"]) - {"empty-1.0"}
        same_texts = by_id.set_index("cell").loc["own-1.0"]
        assert (same_texts["difference"], same_texts["p"], same_texts["needed"]) == (0, 1, math.inf)

    def test_plain_decoding_is_the_same_for_all_negatives_so_one_run_of_it_will_do(self) -> None:
        results = RESULTS[RESULTS["cell"] != "own-1.0"]
        table = comparisons(results, ["sentiment"])
        assert set(table["baseline"]) == {"empty-1.0"}
        pd.testing.assert_series_equal(table["difference"], comparisons(RESULTS, ["sentiment"])["difference"])

    def test_cells_of_another_model_are_no_baseline(self) -> None:
        other = study(seed=1, model="gpt2")
        other["cell"] += "-gpt2"
        both = pd.concat([RESULTS, other[other["guidance.scale"] > 1]], ignore_index=True)
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
            ({"guidance.scale": 7}, "fits no cell; there are .*1 or 1.5 or 2"),
            ({"scale": 1}, "names 'scale', but the settings are model, "),
        ],
    )
    def test_a_name_that_fits_none_or_several_is_refused(self, baseline: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            comparisons(RESULTS, baseline=baseline)

    def test_without_plain_decoding_a_baseline_is_asked_for(self) -> None:
        with pytest.raises(InputError, match=r"guidance\.scale 1"):
            comparisons(RESULTS[RESULTS["guidance.scale"] > 1])


class TestPareto:
    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8))
    def test_the_front_is_what_no_other_cell_beats(self, points: list[tuple[int, int]]) -> None:
        """Against the definition, with ties; a single prompt leaves nothing to chance."""
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
        assert front["probability"].tolist() == [float(there) for there in expected]

    def test_turning_a_metric_round_turns_its_direction_round(self) -> None:
        turned = RESULTS.assign(perplexity=-RESULTS["perplexity"])
        plain = pareto(RESULTS, "perplexity", "sentiment")
        other = pareto(turned, "perplexity", "sentiment", x_better="higher")
        assert (plain["on_front"] == other["on_front"]).all()
        assert (plain["probability"] == other["probability"]).all()

    def test_cells_of_the_same_texts_stand_and_fall_together(self) -> None:
        front = pareto(RESULTS, "perplexity", "sentiment").set_index("cell")
        assert front.loc["own-1.0"].tolist() == front.loc["empty-1.0"].tolist()

    def test_what_prompts_do_to_all_cells_alike_does_not_blur_the_front(self) -> None:
        """One cell is better on every prompt, by far less than prompts differ."""
        base = study(prompts=8, samples=1)
        base = base[base["cell"].isin(["own-1.0", "own-2.0"])].copy()
        shared = base["prompt_id"].str[1:].astype(float)
        base["perplexity"] = 100 * shared + (base["cell"] == "own-2.0")
        base["sentiment"] = 100 * shared - (base["cell"] == "own-2.0")
        front = pareto(base, "perplexity", "sentiment").set_index("cell")
        assert front["probability"].to_dict() == {"own-1.0": 1.0, "own-2.0": 0.0}

    def test_the_probability_is_about_even_where_chance_decides(self) -> None:
        """Two cells that differ in one metric by noise alone, over many studies."""
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
    def test_a_figure_has_the_width_of_a_column_or_page_and_nothing_sticks_out(
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

    def test_where_the_scale_does_not_vary_the_other_setting_makes_the_places(self) -> None:
        (axes,) = scale_curves(RESULTS[RESULTS["guidance.scale"] == 2], "words").axes
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["empty", "own"]
        scale_curves(RESULTS[RESULTS["cell"] == "own-2.0"], "words")

    def test_every_cell_of_a_trade_off_is_labelled_and_labels_do_not_overlap(self) -> None:
        figure = trade_off(RESULTS, "perplexity", "sentiment")
        figure.draw_without_rendering()
        (axes,) = figure.axes
        labels = [text for text in axes.texts if "prompts" not in text.get_text()]
        # Scale 1 is one place with one label.
        assert sorted(text.get_text() for text in labels) == ["1", "1.5", "1.5", "2", "2"]
        boxes = [text.get_window_extent() for text in labels]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])

    def test_the_front_is_drawn_through_its_cells_and_only_where_directions_are_known(self) -> None:
        (axes,) = trade_off(RESULTS, "perplexity", "sentiment").axes
        (drawn,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
        front = pareto(RESULTS, "perplexity", "sentiment").query("on_front")
        expected = front.sort_values("perplexity")[["perplexity", "sentiment"]].to_numpy()
        assert drawn.get_xydata() == pytest.approx(expected)
        (axes,) = trade_off(RESULTS, "words", "sentiment").axes
        assert "Pareto front" not in [line.get_label() for line in axes.lines]

    def test_a_heat_map_writes_mean_and_interval_in_each_cell(self) -> None:
        (axes,) = heat_map(RESULTS, "words", "negatives", "guidance.scale").axes
        written = {text.get_text() for text in axes.texts}
        for row in summary(RESULTS, ["words"]).to_dict("records"):
            assert f"{row['words']:.1f}" in written
            assert f"{row['words_low']:.1f} – {row['words_high']:.1f}" in written

    def test_a_heat_map_of_more_than_two_settings_is_refused(self) -> None:
        other = study(seed=1, model="gpt2")
        other["cell"] += "-gpt2"
        both = pd.concat([RESULTS, other])
        with pytest.raises(InputError, match="differ also in model"):
            heat_map(both, "words", "negatives", "guidance.scale")
        with pytest.raises(InputError, match="rows is 'negative', which is no setting"):
            heat_map(RESULTS, "words", "negative", "guidance.scale")

    def test_unscored_cells_leave_gaps(self) -> None:
        results = study()
        results.loc[results["cell"] == "own-2.0", "words"] = np.nan
        results.loc[results["negatives"] == "empty", "words"] = 3.0
        scale_curves(results, "words")
        trade_off(results, "words", "sentiment", size="words")
        heat_map(results, "words", "negatives", "guidance.scale")

    def test_saved_files_are_vector_and_pixel_with_embedded_fonts_and_the_same_every_time(
        self, tmp_path: Path
    ) -> None:
        first = save(scale_curves(RESULTS, "words"), tmp_path / "new" / "a.b")
        again = save(scale_curves(RESULTS, "words"), tmp_path / "again")
        assert [file.name for file in first] == ["a.b.png", "a.b.svg", "a.b.pdf"]
        for one, other in zip(first, again, strict=True):
            assert one.read_bytes() == other.read_bytes()
        with Image.open(first[0]) as image:
            assert image.width == round(COLUMN * 300)
        pdf = first[2].read_bytes()
        assert b"/FontFile2" in pdf  # TrueType, embedded
        assert b"/Type3" not in pdf

    def test_a_notebook_shows_a_figure_sharp_and_at_its_own_size(self) -> None:
        data, metadata = DisplayFormatter().format(scale_curves(RESULTS, "sentiment"))
        width = metadata["image/png"]["width"]
        assert width == round(COLUMN * 150)
        assert Image.open(io.BytesIO(data["image/png"])).width == pytest.approx(2 * width, abs=1)

    def test_the_users_own_style_and_backend_are_left_alone(self) -> None:
        code = (
            "import sys; from tests.test_analysis import RESULTS, scale_curves; import matplotlib as m;"
            "own = lambda: {key: m.rcParams[key] for key in m.rcParams if key != 'backend'};"
            "m.rcParams['font.size'] = 20; before = own(); scale_curves(RESULTS, 'words');"
            "assert own() == before; assert 'matplotlib.pyplot' not in sys.modules"
        )
        root = Path(__file__).parent.parent
        subprocess.run([sys.executable, "-c", code], check=True, cwd=root)

    def test_the_colours_of_four_lines_are_told_apart_by_colour_blind_readers(self) -> None:
        """Machado, Oliveira & Fernandes 2009, severity 1; distances in CIELAB."""
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

    def test_ink_is_legible_on_any_shade(self) -> None:
        assert legible_on("#000000") == legible_on("#1D4468") == "white"
        assert legible_on("#FFFFFF") == legible_on("#9FC3CC") != "white"

    def test_numbers_show_three_digits_of_the_largest(self) -> None:
        assert [decimals([value]) for value in (0.0123, 0.9, 4.2, 31.0, 512.0, 0.0)] == [4, 3, 2, 1, 0, 2]


def _lab(linear: np.ndarray) -> np.ndarray:
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
