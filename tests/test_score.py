"""Scoring a finished sweep with more metrics decodes nothing again."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import cfg_lab
from cfg_lab import metrics, models
from cfg_lab.errors import InputError
from cfg_lab.metrics import Text
from cfg_lab.score import run
from cfg_lab.study.store import Store
from tests.cli import environment, on, sweep

GRID = ["guidance.scale=1,2", "negatives=empty,own"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    sweep(*on(folder, tiny_folder), *GRID)
    return folder / "results" / "study"


@pytest.fixture
def results(swept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(swept, tmp_path / "study"))


def files(root: Path) -> dict[Path, int]:
    """The Parquet files of a results folder, with the times of their last change."""
    return {path: path.stat().st_mtime_ns for path in root.glob("[cs]*/*.parquet")}


METRICS_WITH_MODELS = [
    "metrics=[sentiment,topic,relevance,toxicity,vendi,mauve,language,evaluator,classifier,perplexity]",
    "metrics.classifier.model=nowhere/nothing",
    "metrics.classifier.label=good",
]
"""A choice of metrics, most of which need a model."""


def test_tables_and_page_of_a_scored_folder_load_no_model(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the model of a metric cannot be loaded any more."""
    study = [*on(tmp_path, tiny_folder), *METRICS_WITH_MODELS, "report=true"]
    with monkeypatch.context() as patch:
        for metric in _metrics():
            patch.setattr(metric, "score", _lengths)
        rows = sweep(*study)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    for metric in _metrics():
        monkeypatch.setattr(metric, "score", refuse)
    monkeypatch.setattr(models.LanguageModel, "module", property(refuse))
    (tmp_path / "results" / "study" / "report.html").unlink()
    assert sweep(*study) == rows
    assert (tmp_path / "results" / "study" / "report.html").exists()
    assert run(str(tmp_path / "results" / "study"), METRICS_WITH_MODELS) == rows


def _metrics() -> list[type]:
    """The classes of all packaged metrics."""
    members = vars(metrics).values()
    return [m for m in members if isinstance(m, type) and "columns" in vars(m) and m is not metrics.Metric]


def _lengths(metric: metrics.Metric, texts: Sequence[Text]) -> dict[str, list[float]]:
    """Scores that need no model."""
    return {column: [float(len(text.text)) for text in texts] for column in metric.columns}


@pytest.mark.parametrize("column", ["perplexity_n", "text", "seed", "a.b"])
def test_a_column_with_a_name_that_results_use_is_refused(column: str, results: Path, tmp_path: Path) -> None:
    module = tmp_path / "users_metric.py"
    module.write_text(
        "import datasets\nimport evaluate\n\n\n"
        "class UsersMetric(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        features = datasets.Features({'predictions': datasets.Value('string')})\n"
        "        return evaluate.MetricInfo(description='', citation='', features=features)\n\n"
        "    def _compute(self, predictions):\n"
        f"        return {{{column!r}: 1.0}}\n"
    )
    before = files(results)
    arguments = [f"metrics.evaluate.module={module}", f"metrics.evaluate.column={column}"]
    with pytest.raises(InputError, match=f"EvaluateModule gives a column '{re.escape(column)}'"):
        run(str(results), ["metrics=[evaluate]", *arguments])
    assert files(results) == before


def test_a_metric_is_added_and_again_is_nothing(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the generator was loaded")

    monkeypatch.setattr(models, "load_model", refuse)
    before, frame = files(results), cfg_lab.load_results(results)
    rows = run(str(results), ["metrics=[guided_likelihood,readability]"])
    after = cfg_lab.load_results(results)
    assert after["guided_log_prob"].notna().all()
    pd.testing.assert_frame_equal(after[frame.columns], frame, check_frame_type=False)
    added = set(files(results)) - set(before)
    assert {path.parent.name for path in added} == {"scores"}
    summary = pd.read_parquet(results / "summary.parquet")
    for row in rows:
        values = after.loc[after["cell"] == row["cell"], "guided_log_prob"]
        assert row["guided_log_prob"] == pytest.approx(values.mean())
        assert row["perplexity"] > 1  # earlier metrics stay
    assert summary["guided_log_prob_n"].tolist() == [6] * 4
    printed = capsys.readouterr().out
    assert "guided_log_prob" in printed
    assert "negatives" in printed

    scored = files(results)
    run(str(results), ["metrics=[guided_likelihood,readability]"])
    assert files(results) == scored
    assert "every text has these scores already" in capsys.readouterr().out


def rows_of_table(printed: str, columns: int) -> list[list[str]]:
    """The first columns of each row of a printed table."""
    lines = [line.split("│") for line in printed.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line[1 : columns + 1]] for line in lines if line[1].strip()]


def test_the_tables_of_sweep_and_score_have_the_same_labels(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a number stands in a column with fractions."""
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,1.5,2", "negatives=empty,own", "metrics=[length]")
    of_sweep = rows_of_table(capsys.readouterr().out, 3)
    run(str(tmp_path / "results" / "study"), ["metrics=[length]"])
    of_score = rows_of_table(capsys.readouterr().out, 3)
    assert sorted(of_sweep) == sorted(of_score)
    assert {scale for scale, _, _ in of_score} == {"1", "1.5", "2"}
    (tmp_path / "results" / "study" / "config.yaml").unlink()  # labels from the settings that differ
    run(str(tmp_path / "results" / "study"), ["metrics=[length]"])
    assert sorted(sorted(row) for row in rows_of_table(capsys.readouterr().out, 3)) == sorted(
        sorted(row) for row in of_sweep
    )


def test_a_renamed_key_is_named(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = {"metrics.old": "metrics.new", "guidance.strength": "guidance.scale"}
    monkeypatch.setattr("cfg_lab.study.config.RENAMED_KEYS", renamed)
    for override in ("metrics.old=1", "+metrics.old=1", "metrics.old=1,2"):
        with pytest.raises(InputError, match=r"key metrics\.old was renamed; use metrics\.new instead"):
            run(str(results), ["metrics=[length]", override])
    with pytest.raises(InputError, match=r"guidance\.strength was renamed; use guidance\.scale"):
        run(str(results), ["guidance.strength=2"])
    with pytest.raises(InputError, match=r"metrics\.older is not a config key"):
        run(str(results), ["metrics.older=1"])


def test_at_scale_1_the_guided_likelihood_is_the_perplexity(results: Path) -> None:
    run(str(results), ["metrics=[guided_likelihood]"])
    frame = cfg_lab.load_results(results)
    off = frame[frame["guidance.scale"] == 1]
    guided = [math.exp(-value) for value in off["guided_log_prob"]]
    assert guided == pytest.approx(off["perplexity"].tolist(), rel=1e-4)


def test_a_metric_of_sets_has_its_number_as_mean_and_is_scored_once(results: Path) -> None:
    rows = run(str(results), ["metrics=[self_bleu]"])
    store = Store(results)
    frame = cfg_lab.load_results(results)
    assert frame["self_bleu"].notna().all()
    for row in rows:
        cell = frame[frame["cell"] == row["cell"]]
        assert row["self_bleu"] == pytest.approx(cell["self_bleu"].mean())
        assert row["self_bleu_across_low"] <= row["self_bleu_across"] <= row["self_bleu_across_high"]
        for _, samples in cell.groupby("prompt_id"):
            assert samples["self_bleu"].between(0, 1).all()
    # the two cells of scale 1 hold the same texts, and share their scores
    ids = [text for text, _ in store.scored() if "@" in text]
    assert len(ids) == 3 * 6
    before = files(results)
    run(str(results), ["metrics=[self_bleu]"])
    assert files(results) == before


def test_another_text_in_the_set_scores_the_set_anew(results: Path) -> None:
    """Metrics of a set change when a cell that was decoded in part is decoded completely."""
    (shard,) = (results / "completions").glob("*.parquet")
    whole = pq.read_table(shard)
    pq.write_table(whole.slice(0, len(whole) - 1), shard)
    rows = run(str(results), ["metrics=[self_bleu]"])
    assert sorted(row["texts"] for row in rows) == [5, 6, 6, 6]
    pq.write_table(whole, shard)
    assert cfg_lab.load_results(results)["self_bleu"].isna().sum() == 6  # never those of another set
    rows = run(str(results), ["metrics=[self_bleu]"])
    assert [row["texts"] for row in rows] == [6] * 4
    assert cfg_lab.load_results(results)["self_bleu"].notna().all()


def test_the_same_as_scoring_while_sweeping(tmp_path: Path, tiny_folder: Path, results: Path) -> None:
    chosen = "metrics=[length,self_bleu,repetition]"
    sweep(*on(tmp_path, tiny_folder, "at_once"), *GRID, chosen)
    run(str(results), [chosen])
    order = ["negatives", "guidance.scale", "prompt_id", "sample"]
    at_once, later = (
        cfg_lab.load_results(path).sort_values(order, ignore_index=True)
        for path in (tmp_path / "results" / "at_once", results)
    )
    columns = ["length", "degenerate", "self_bleu", "self_bleu_across", "repeated_2", "compression"]
    pd.testing.assert_frame_equal(at_once[columns], later[columns])


def test_the_cells_phrases_are_what_a_metric_sees(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(
        *on(tmp_path, tiny_folder),
        "negatives=custom",
        "negatives.phrases='ugly:0.8, low'",
        "guidance.scale=1",
    )
    sweep(*on(tmp_path, tiny_folder), "negatives=own", "guidance.scale=1")
    cells = Store(tmp_path / "results" / "study").cells()
    seen = cells.groupby("negatives")["prompt_negative"].agg(set)
    assert seen["custom"] == {"ugly:0.8, low"}
    assert len(seen["own"]) == 3
    # an equal text has other scores for other phrases
    assert cells["completion"].nunique() == 6
    assert cells["score_id"].nunique() == 12


def test_results_from_before_the_new_columns(results: Path) -> None:
    for path in results.glob("c*/*.parquet"):
        table = pq.read_table(path)
        new = [name for name in table.column_names if name == "stop_token" or name.startswith("prompt_")]
        pq.write_table(table.drop_columns([name for name in new if name != "prompt_id"]), path)
    run(str(results), ["metrics=[length,self_bleu,answer]"])
    frame = cfg_lab.load_results(results)
    assert frame[["length", "self_bleu"]].notna().all(axis=None)
    assert frame["exact_match"].isna().all()


def test_a_warning_is_printed_once_for_all_cells(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(str(results), ["metrics=[mauve]"])
    assert all(math.isnan(row["mauve"]) and row["mauve_n"] == 0 for row in rows)
    assert capsys.readouterr().out.count("warning: mauve is not computed: 6 texts and 0 references") == 1


BAD = {
    "metrics=[readabilty]": r"metrics has no option 'readabilty' \(did you mean readability\?\)",
    "metrics.language.language=en": r"metrics\.language\S* is not a config key",
    "metrics=[length": r"'metrics=\[length' cannot be read",
    "model=gpt2": r"score takes metrics=… and metrics\.…=… only; got 'model=gpt2'",
    "metrics=[evaluate]": r"metrics\.evaluate\.module has no value yet",
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_input_is_named_and_nothing_is_written(results: Path, argument: str) -> None:
    before = files(results)
    with pytest.raises(InputError, match=BAD[argument]):
        run(str(results), [argument])
    assert files(results) == before


def test_folders_without_results(results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing' holds no results; a sweep writes them"):
        run(str(tmp_path / "nothing"), ["metrics=[length]"])
    shutil.rmtree(results / "completions")
    with pytest.raises(InputError, match=r"nothing in .*study' is decoded yet; run its sweep first"):
        run(str(results), ["metrics=[length]"])


def test_the_command(results: Path, tmp_path: Path) -> None:
    def score(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cfg_lab.score", *arguments],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )

    helped = score("--help")
    assert "metrics=[readability,leakage]" in helped.stdout
    assert "self_bleu" in helped.stdout
    done = score(str(results), "metrics=[readability]")
    assert done.returncode == 0, done.stderr
    assert "reading_ease" in done.stdout
    bad = score(str(tmp_path / "x"), "metrics=[readability]")
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: ")
    assert "Traceback" not in bad.stderr
