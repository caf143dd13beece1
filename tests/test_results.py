"""Results are a frame. A notebook shows their cells; frames derived from them are plain."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cfg_lab import analysis, load_results
from cfg_lab.errors import InputError
from cfg_lab.study.notebook_html import results_html, row_html
from cfg_lab.study.results import Results
from tests.cli import on, sweep
from tests.fabricated import results as fabricated
from tests.test_report import outline


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Results:
    folder = tmp_path_factory.mktemp("swept")
    sweep(*on(folder, tiny_folder), "guidance.scale=1,2", "negatives=empty,own", "top=2")
    return load_results(folder / "results" / "study")


def test_results_are_shown_as_their_summary(results: Results) -> None:
    html = results._repr_html_()
    outline(html)
    assert html.startswith(results_html(analysis.summary(results)))
    assert "4 cells; mean [95 % interval] n" in html
    assert (
        "24 texts, one per row; columns prompt_id, prompt, prompt_negative, sample, completion, cell, "
        in html
    )
    assert "6 trace_…, 3 alternatives_…" in html
    sentence = html[html.index("<p>") :]
    assert f"{len(analysis.metrics_of(results))} metrics" in sentence
    assert "guidance.scale" not in sentence


DERIVED: list[Callable[[pd.DataFrame], Any]] = [
    lambda frame: frame[:],
    lambda frame: frame.iloc[:3],
    lambda frame: frame.loc[frame["sample"] == 0],
    lambda frame: frame[["cell", "text", "prompt", "sample", "prompt_id"]],
    lambda frame: frame.query("`guidance.scale` == 2"),
    lambda frame: frame.groupby("cell").head(1),
    lambda frame: frame.copy(),
    lambda frame: copy.copy(frame),
    lambda frame: copy.deepcopy(frame),
    lambda frame: frame.assign(short=frame["length"] < 5),
    lambda frame: frame.sort_values("length"),
    lambda frame: frame.rename(columns={"length": "tokens_"}),
    lambda frame: frame.drop(columns="length"),
    lambda frame: frame.merge(frame[["completion"]].drop_duplicates(), on="completion"),
    lambda frame: frame.pivot_table(index="negatives", columns="guidance.scale", values="length"),
    lambda frame: pd.concat([frame, frame]),
    lambda frame: frame.reset_index(),
    lambda frame: frame.T,
]


@pytest.mark.parametrize("derive", DERIVED)
def test_what_is_derived_from_results_is_a_plain_frame(results: Results, derive: Any) -> None:
    assert type(derive(results)) is pd.DataFrame
    assert type(results) is Results


def test_results_are_pickled_whole(results: Results) -> None:
    again = pickle.loads(pickle.dumps(results))
    assert type(again) is Results
    assert again._repr_html_() == results._repr_html_()
    pd.testing.assert_frame_equal(pd.DataFrame(again), pd.DataFrame(results))


def test_results_are_exported(results: Results, tmp_path: Path) -> None:
    results.to_parquet(tmp_path / "all.parquet")
    again = pd.read_parquet(tmp_path / "all.parquet")
    assert type(again) is pd.DataFrame
    assert list(again.columns) == list(results.columns)
    assert again["text"].tolist() == results["text"].tolist()
    assert [list(row) for row in again["tokens"]] == [list(row) for row in results["tokens"]]
    column = "alternatives_guided"
    assert again[column].iloc[0][0][0] == results[column].iloc[0][0][0]
    pd.testing.assert_frame_equal(analysis.summary(again), analysis.summary(results))


def test_a_column_that_a_user_adds_is_shown_as_a_metric(results: Results) -> None:
    extended = pickle.loads(pickle.dumps(results))
    extended["capitals"] = extended["text"].str.count("[A-Z]")
    assert type(extended) is Results
    assert ">capitals</th>" in extended._repr_html_()


def test_results_without_the_column_cell_are_shown_as_a_frame(results: Results) -> None:
    bare = pickle.loads(pickle.dumps(results))
    bare.drop(columns="cell", inplace=True)
    assert "95 % interval" not in bare._repr_html_()
    assert "<table" in bare._repr_html_()


def test_every_text_of_a_sweep_has_a_token_view(results: Results) -> None:
    for _, row in results.iterrows():
        html = row_html(row)  # pyright: ignore[reportArgumentType]
        outline(html)
        assert html.count('role="tooltip"') == len(row["tokens"])
        assert html.count("likeliest: ") >= 2 * len(row["tokens"])  # positive and guided
    assert row_html(results.iloc[0].to_dict()) == row_html(results.iloc[0])  # pyright: ignore


def test_a_text_without_pieces_has_no_token_view() -> None:
    with pytest.raises(ValueError, match="has no 'pieces'"):
        row_html(fabricated().iloc[0])  # pyright: ignore[reportArgumentType]
    assert "cfg-lab-t" in row_html(fabricated(pieces=True).iloc[0])  # pyright: ignore[reportArgumentType]


def test_a_folder_that_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        load_results(tmp_path)
