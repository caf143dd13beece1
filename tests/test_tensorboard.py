"""TensorBoard shows what is on disk: its event files are read back with its own reader."""

from __future__ import annotations

import importlib.util
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import cfg_lab
from cfg_lab.errors import InputError
from cfg_lab.score import run as score
from cfg_lab.study.config import build, compose_group
from cfg_lab.track import StudyResult, TensorBoardTracker
from cfg_lab.track.__main__ import run
from cfg_lab.track.tensorboard_tracker import EVENT_FILES, curves
from tests.cli import on, sweep

TENSORBOARD = ["tracking=tensorboard"]
GRID = ["guidance.scale=1,1.5,3", "negatives=empty,own"]
STATISTICS = {"mean": "", "low": "_low", "high": "_high", "n": "_n"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Results of six cells, logged to TensorBoard by the sweep. Not to be changed."""
    folder = tmp_path_factory.mktemp("swept")
    sweep(*on(folder, tiny_folder), *GRID, *TENSORBOARD, "report=true")
    return folder / "results" / "study"


def results_of(tmp_path: Path, tiny_folder: Path, *overrides: str) -> Path:
    """Results that a test may change: one cell per scale 1 and 2."""
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2", *TENSORBOARD, "report=true", *overrides)
    return tmp_path / "results" / "study"


def runs(log_dir: Path) -> dict[str, EventAccumulator]:
    """Every run by its name in TensorBoard. No run has two event files, which would show everything twice."""
    found: dict[str, EventAccumulator] = {}
    for file in sorted(log_dir.rglob(EVENT_FILES)):
        name = str(file.parent.relative_to(log_dir))
        assert name not in found
        found[name] = EventAccumulator(str(file.parent), size_guidance={"tensors": 0, "images": 0})
        found[name].Reload()
    return found


def by_cell(log_dir: Path) -> dict[str, EventAccumulator]:
    """The runs of the cells by the id of the cell."""
    return {
        name.rpartition(" ")[2]: run for name, run in runs(log_dir).items() if not name.startswith("overview")
    }


def shown_text(run: EventAccumulator, tag: str) -> list[str]:
    return [event.tensor_proto.string_val[0].decode() for event in run.Tensors(f"{tag}/text_summary")]


def points(run: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in run.Scalars(tag)]


def test_a_cell_is_a_run_with_every_metric_at_its_scale(swept: Path) -> None:
    summary = pd.read_parquet(swept / "summary.parquet")
    logged = by_cell(swept / "tensorboard")
    assert set(logged) == set(summary["cell"])
    for row in summary.to_dict("records"):
        for metric in ("perplexity", "distinct_1", "length"):
            for statistic, ending in STATISTICS.items():
                ((step, value),) = points(logged[row["cell"]], f"{statistic}/{metric}")
                assert step == 1000 * row["guidance.scale"]
                assert value == pytest.approx(row[f"{metric}{ending}"], rel=1e-6)


def test_what_is_not_scored_is_not_logged(swept: Path) -> None:
    summary = pd.read_parquet(swept / "summary.parquet")
    metrics = [name.removesuffix("_n") for name in summary if name.endswith("_n")]
    columns = {
        f"{statistic}/{name}": f"{name}{end}" for name in metrics for statistic, end in STATISTICS.items()
    }
    assert summary[list(columns.values())].isna().any(axis=None)  # such as the fourth word of texts of three
    for row in summary.to_dict("records"):
        tags = by_cell(swept / "tensorboard")[row["cell"]].Tags()["scalars"]
        assert set(tags) == {tag for tag, column in columns.items() if row[column] == row[column]}


def test_a_run_is_named_as_the_page_names_its_cell(swept: Path) -> None:
    names = [name for name in runs(swept / "tensorboard") if not name.startswith("overview")]
    labels = {name.rpartition(" ")[0] for name in names}
    assert labels == {f"negatives {own}, scale {scale}" for own in ("empty", "own") for scale in (1, 1.5, 3)}


def test_the_settings_of_a_cell_are_its_hyperparameters(swept: Path) -> None:
    summary = pd.read_parquet(swept / "summary.parquet")
    for row in summary.to_dict("records"):
        logged = by_cell(swept / "tensorboard")[row["cell"]]
        assert logged.SummaryMetadata("_hparams_/session_end_info").plugin_data.plugin_name == "hparams"
        content = logged.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        settings = HParamsPluginData.FromString(content).session_start_info.hparams
        assert settings["negatives"].string_value == row["negatives"]
        assert settings["guidance.scale"].number_value == row["guidance.scale"]
        assert settings["max_new_tokens"].number_value == 8
    content = runs(swept / "tensorboard")["overview"].SummaryMetadata("_hparams_/experiment").plugin_data
    columns = HParamsPluginData.FromString(content.content).experiment
    assert {info.name for info in columns.hparam_infos} == {"guidance.scale", "negatives"}
    assert "mean/perplexity" in {info.name.tag for info in columns.metric_infos}


def test_texts_are_shown_verbatim_by_prompt_and_sample(swept: Path) -> None:
    results = cfg_lab.load_results(swept)
    for cell, logged in by_cell(swept / "tensorboard").items():
        for prompt, texts in results[results["cell"] == cell].groupby("prompt_id"):
            for text, shown in zip(texts.itertuples(), shown_text(logged, f"texts/{prompt}"), strict=True):
                assert shown.startswith(f"> {text.prompt}\n\n")
                verbatim = "\n".join(f"    {line}" for line in text.text.splitlines())
                assert f"\n\n{verbatim}\n\n" in shown
                assert f"perplexity {text.perplexity:.4g}" in shown


def test_cells_that_differ_in_scale_alone_are_points_of_a_curve(swept: Path) -> None:
    summary = pd.read_parquet(swept / "summary.parquet")
    logged = runs(swept / "tensorboard")
    assert {name for name in logged if name.startswith("overview/")} == {
        "overview/negatives empty",
        "overview/negatives own",
    }
    for negatives in ("empty", "own"):
        cells = summary[summary["negatives"] == negatives].sort_values("guidance.scale")
        curve = points(logged[f"overview/negatives {negatives}"], "mean/perplexity")
        assert [step for step, _ in curve] == [1000, 1500, 3000]
        assert [value for _, value in curve] == pytest.approx(list(cells["perplexity"]), rel=1e-6)


def test_curves_need_two_scales() -> None:
    frame = pd.DataFrame(
        {
            "cell": list("abcd"),
            "negatives": ["own", "own", "empty", "empty"],
            "guidance.scale": [3.0, 1.0, 2.0, None],
            "length": [1, 2, 3, 4],
        }
    )
    ((label, cells),) = curves(frame).items()
    assert (label, list(cells["cell"])) == ("negatives own", ["b", "a"])
    assert curves(frame.drop(columns="guidance.scale")) == {}
    ((label, cells),) = curves(frame.iloc[:2].drop(columns="negatives")).items()
    assert (label, list(cells["cell"])) == ("all cells", ["b", "a"])


def test_curves_with_similar_titles_have_runs_of_their_own(tmp_path: Path) -> None:
    """Phrases hold characters that are not allowed in names of folders, and can be long."""
    phrases = ["a:1", "a/1", "b" * 200, "b" * 201]
    rows = [
        {"cell": f"{phrase} {scale}", "negatives.phrases": phrase, "guidance.scale": scale}
        for phrase in phrases
        for scale in (1.0, 2.0)
    ]
    frame = pd.DataFrame(rows).assign(length=1.0, length_low=1.0, length_high=1.0, length_n=3)
    result = StudyResult(
        study="s",
        record={},
        costs={},
        summary=frame,
        comparisons=pd.DataFrame(),
        figures={},
        page=None,
        folder=tmp_path,
        earlier_folders={},
    )
    TensorBoardTracker().log_study(result)
    names = [name for name in runs(tmp_path / "tensorboard") if name.startswith("overview/")]
    assert len(names) == 4


def test_the_overview_has_tables_figures_cost_and_bands(swept: Path) -> None:
    overview = runs(swept / "tensorboard")["overview"]
    (summary,) = shown_text(overview, "summary")
    for cell in pd.read_parquet(swept / "summary.parquet")["cell"]:
        assert f"| {cell} |" in summary
    (comparisons,) = shown_text(overview, "comparisons")
    assert "| perplexity |" in comparisons
    (record,) = shown_text(overview, "record")
    environment = json.loads((swept / "environment.json").read_text())
    assert f"| python | {environment['python']} |" in record
    assert f"torch {environment['packages']['torch']}" in record
    (cost,) = [json.loads(path.read_text()) for path in (swept / "costs").iterdir()]
    ((_, tokens),) = points(overview, "cost/tokens")
    assert tokens == cost["tokens"]
    figures = {"perplexity", "distinct_1", "perplexity against distinct_1"}
    assert {tag.removeprefix("figures/") for tag in overview.Tags()["images"]} == figures
    (event,) = overview.Images("figures/perplexity")
    colours = Image.open(io.BytesIO(event.encoded_image_string)).getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 100  # something is drawn
    (event,) = overview.Tensors("custom_scalars__config__")
    (category,) = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
    bands = {chart.title: chart.margin.series[0] for chart in category.chart}
    series = bands["perplexity"]
    assert (series.value, series.lower, series.upper) == (
        "mean/perplexity",
        "low/perplexity",
        "high/perplexity",
    )


def test_logging_again_replaces_the_event_files(tmp_path: Path, tiny_folder: Path) -> None:
    root = results_of(tmp_path, tiny_folder)
    before = runs(root / "tensorboard")
    assert run(str(root), TENSORBOARD) == 0
    score(str(root), ["metrics=[readability]"])
    assert run(str(root), TENSORBOARD) == 3
    after = runs(root / "tensorboard")  # checks that no run has two files
    assert set(after) == set(before)
    for name, logged in after.items():
        if not name.startswith("overview"):
            assert "mean/reading_ease" not in before[name].Tags()["scalars"]
            assert "mean/reading_ease" in logged.Tags()["scalars"]
            assert len(points(logged, "mean/perplexity")) == 1


def test_a_cell_with_a_new_label_leaves_its_former_folder(tmp_path: Path, tiny_folder: Path) -> None:
    """ "scale 2" becomes "negatives own, scale 2" when the study grows."""
    root = results_of(tmp_path, tiny_folder)
    before = runs(root / "tensorboard")
    assert "overview/all cells" in before
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2", "negatives=own,empty", *TENSORBOARD)
    after = runs(root / "tensorboard")
    assert set(before) & set(after) == {"overview"}
    assert len(by_cell(root / "tensorboard")) == 4
    assert {path.name for path in (root / "tensorboard").iterdir()} == {name.split("/")[0] for name in after}


def test_a_failure_leaves_the_earlier_run_and_no_duplicate_later(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = results_of(tmp_path, tiny_folder)
    before = {
        name: points(logged, "mean/length")
        for name, logged in runs(root / "tensorboard").items()
        if "/" not in name and name != "overview"
    }
    score(str(root), ["metrics=[readability]"])
    with monkeypatch.context() as broken:
        broken.setattr("cfg_lab.track.tensorboard_tracker._text_with_scores", lambda text: 1 / 0)
        with pytest.raises(Exception, match=r"tracking failed \(ZeroDivisionError"):
            run(str(root), TENSORBOARD)
    assert run(str(root), TENSORBOARD) == 3
    after = runs(root / "tensorboard")
    assert {name: points(after[name], "mean/length") for name in before} == before


def test_a_folder_for_several_studies(tmp_path: Path, tiny_folder: Path) -> None:
    log_dir = tmp_path / "log dir"
    root = results_of(tmp_path, tiny_folder, f"tracking.log_dir='{log_dir}'")
    sweep(
        *on(tmp_path, tiny_folder, "b & c"),
        "guidance.scale=1,2",
        *TENSORBOARD,
        f"tracking.log_dir='{log_dir}'",
    )
    assert not (root / "tensorboard").exists()
    studies = {name.partition("/")[0] for name in runs(log_dir)}
    assert len(studies) == 2
    assert "study" in studies
    assert {path.name for path in log_dir.iterdir()} == studies  # nothing outside, whatever the name
    assert run(str(root), [*TENSORBOARD, f"tracking.log_dir='{log_dir}'"]) == 0
    assert run(str(root), TENSORBOARD) == 3  # another destination


def test_other_files_are_left_alone(tmp_path: Path, tiny_folder: Path) -> None:
    root = results_of(tmp_path, tiny_folder)
    notes = [folder / "notes.txt" for folder in (root / "tensorboard").iterdir()]
    for path in notes:
        path.write_text("mine")
    assert run(str(root), TENSORBOARD, everything=True) == 3
    assert [path.read_text() for path in notes] == ["mine"] * 3


def test_the_number_of_texts_is_a_choice(tmp_path: Path, tiny_folder: Path) -> None:
    root = results_of(tmp_path, tiny_folder, "tracking.texts=3")
    for number in (3, 0):
        run(str(root), [*TENSORBOARD, f"tracking.texts={number}"], everything=True)
        for logged in by_cell(root / "tensorboard").values():
            tags = [tag for tag in logged.Tags()["tensors"] if tag.startswith("texts/")]
            assert sum(len(logged.Tensors(tag)) for tag in tags) == number


@pytest.mark.parametrize("log_dir", ["", 5, False])
def test_a_wrong_folder_is_named(log_dir: Any) -> None:
    with pytest.raises(InputError, match=r"tracking\.log_dir must be a folder, or null for the results, got"):
        TensorBoardTracker(log_dir=log_dir)


@pytest.mark.parametrize("texts", [-1, True, 1.5])
def test_a_wrong_number_of_texts_is_named(texts: Any) -> None:
    with pytest.raises(InputError, match=r"tracking\.texts must be a whole number, 0 for no texts, got"):
        TensorBoardTracker(texts=texts)


def test_without_the_package_the_error_says_what_to_install(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is decoded."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name)
    )
    with pytest.raises(InputError, match=r"pip install cfg_lab\[tensorboard\]"):
        results_of(tmp_path, tiny_folder)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("log_dir", [None, "/a/logs", "/a/my logs", "/a/x=1, 'y'", "~/logs"])
def test_the_hint_after_an_error_makes_the_same_tracker(log_dir: str | None) -> None:
    tracker = TensorBoardTracker(log_dir=log_dir)
    config = compose_group("tracking", shlex.split(tracker.retry_hint), "track")
    assert build(config, "tracking") == tracker
