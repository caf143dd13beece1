"""Weights & Biases sees what is on disk: its own files, read back by its own tool."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cfg_lab
from cfg_lab.errors import InputError
from cfg_lab.score import run as score
from cfg_lab.study.formats import count
from cfg_lab.study.store import Store
from cfg_lab.track import WandbTracker
from cfg_lab.track.__main__ import main, run
from cfg_lab.track.wandb_tracker import nested, tables
from tests.cli import environment, on, sweep

OFFLINE = ["tracking=wandb", "tracking.mode=offline"]
GRID = ["guidance.scale=1,2", "negatives=empty,own"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    sweep(*on(folder, tiny_folder), *GRID, *OFFLINE, "report=true", "top=2")
    return folder / "results" / "study"


@pytest.fixture
def root(swept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(swept, tmp_path / "study", symlinks=True))


def folders(root: Path) -> dict[str, Path]:
    """Offline runs by the last part of their id; each id once."""
    paths = sorted(root.glob("wandb/offline-run-*"))
    named = {path.name.rpartition("-")[2]: path for path in paths}
    assert len(named) == len(paths)
    return named


def inspect(folder: Path, *options: str) -> str:
    (file,) = folder.glob("*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", *options, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def table(folder: Path, name: str) -> pd.DataFrame:
    (file,) = folder.glob(f"files/media/table/{name}*.table.json")
    kept = json.loads(file.read_text())
    return pd.DataFrame(kept["data"], columns=kept["columns"])


def test_a_cell_is_a_run_with_its_config_metrics_and_texts(swept: Path) -> None:
    results, summary = cfg_lab.load_results(swept), pd.read_parquet(swept / "summary.parquet")
    runs = folders(swept)
    assert set(runs) == {*summary["cell"], "overview"}
    for row in summary.to_dict("records"):
        shown = json.loads(inspect(runs[row["cell"]], "--summary"))
        assert shown["run_id"] == f"study-{row['cell']}"
        assert shown["name"] == f"negatives {row['negatives']}, scale {row['guidance.scale']}"
        assert shown["config"]["guidance"]["scale"] == row["guidance.scale"] == shown["summary"]["scale"]
        assert shown["config"]["negatives"]["option"] == row["negatives"]
        for metric in ("perplexity", "distinct_1", "length"):
            for name in (metric, f"{metric}_low", f"{metric}_high", f"{metric}_n"):
                assert shown["summary"][name] == pytest.approx(row[name])
        texts = table(runs[row["cell"]], "texts")
        own = results[results["cell"] == row["cell"]]
        assert list(texts["text"]) == list(own["text"])
        assert list(texts["perplexity"]) == pytest.approx(list(own["perplexity"]))


def test_the_token_table_is_the_trace(swept: Path) -> None:
    results = cfg_lab.load_results(swept)
    for cell, own in results.groupby("cell"):
        tokens = table(folders(swept)[str(cell)], "tokens")
        assert list(tokens["token"]) == [piece for pieces in own["pieces"] for piece in pieces]
        guided = [value for values in own["trace_guided"] for value in values]
        positive = [value for values in own["trace_positive"] for value in values]
        assert list(tokens["guided"]) == pytest.approx(guided, abs=1e-4)
        assert list(tokens["moved"]) == pytest.approx(
            [a - b for a, b in zip(guided, positive, strict=True)], abs=2e-4
        )
        assert tokens["likeliest guided"].str.count(", ").min() >= 1  # two of each, as asked by top=2


def test_metrics_are_curves_over_the_scale_and_interval_ends_make_no_charts(swept: Path) -> None:
    (run_id,) = list(folders(swept))[:1]
    defined: dict[str, dict[str, Any]] = {}
    for line in inspect(folders(swept)[run_id]).splitlines():
        record = json.loads(line)
        if record["type"] == "run":
            assert (record["run"]["run_group"], record["run"]["job_type"]) == ("study", "cell")
        if record["type"] == "metric":
            defined[record["metric"]["name"]] = record["metric"]
    assert defined["perplexity"]["step_metric"] == "scale"
    assert not defined["perplexity"]["options"].get("hidden")
    assert all(defined[f"perplexity_{end}"]["options"]["hidden"] for end in ("low", "high", "n"))


def test_the_overview_has_tables_figures_page_and_cost(swept: Path) -> None:
    overview = folders(swept)["overview"]
    summary = pd.read_parquet(swept / "summary.parquet").set_index("cell")
    shown = table(overview, "summary").set_index("cell")
    assert list(shown["perplexity"]) == pytest.approx(list(summary.loc[shown.index, "perplexity"]))
    compared = table(overview, "comparisons")
    assert set(compared["metric"]) == {"perplexity", "distinct_1"}
    assert compared["p_holm"].between(0, 1).all()
    (page,) = overview.glob("files/media/html/page*.html")
    assert page.read_text() == (swept / "report.html").read_text()
    figures = {path.name.rpartition("_0_")[0] for path in overview.glob("files/media/images/figures/*.png")}
    assert figures == {"perplexity", "distinct_1", "perplexity against distinct_1"}
    (cost,) = Store(swept).costs()
    said = json.loads(inspect(overview, "--summary"))["summary"]
    assert said["tokens_per_second"] == pytest.approx(cost["tokens"] / cost["seconds"])
    assert said["peak_memory"] == cost["peak_memory"]


def test_what_was_shown_is_not_shown_again_and_what_changed_takes_its_place(root: Path) -> None:
    before = folders(root)
    assert run(str(root), OFFLINE) == 0
    assert folders(root) == before
    score(str(root), ["metrics=[readability]"])
    assert run(str(root), OFFLINE) == 5
    after = folders(root)  # one copy of each id
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    assert "reading_ease" in json.loads(
        inspect(after["overview"].parent / after["overview"].name, "--summary")
    )["summary"] or any("reading_ease" in column for column in table(after["overview"], "summary"))
    assert run(str(root), [*OFFLINE], everything=True) == 5
    assert set(folders(root)) == set(before)


@pytest.mark.parametrize("kept", ["{victim}", "../../victim", "..", ".", 5, None, "offline-run-x/../../.."])
def test_nothing_but_an_offline_run_of_this_folder_is_ever_removed(kept: object, root: Path) -> None:
    """What a results folder says of itself may be anything: it may come from somebody else."""
    victim = root.parent / "victim"
    victim.mkdir()
    (victim / "work.txt").write_text("mine")
    folder = kept.format(victim=victim) if isinstance(kept, str) else kept
    for path in (root / "tracked").iterdir():
        path.write_text(json.dumps({"digest": "x", "destination": "offline cfg_lab", "folder": folder}))
    assert run(str(root), OFFLINE) == 5
    assert (victim / "work.txt").read_text() == "mine"
    assert len(cfg_lab.load_results(root)) == 24


def test_odd_names_and_columns_are_taken(tmp_path: Path, tiny_folder: Path) -> None:
    name = "größe & 100 % " + "x" * 150
    sweep(*on(tmp_path, tiny_folder), f"name='{name}'", "guidance.scale=1", *OFFLINE)
    assert len(list((tmp_path / "results" / name).glob("wandb/offline-run-*"))) == 2
    mixed = pd.DataFrame({"a": [1, "x"], "b": [True, 0.5], "c": [1, 2.5]})
    shown = tables({"mixed": mixed})["mixed"]
    assert shown.data == [["1", "True", 1.0], ["x", "0.5", 2.5]]


def test_another_project_has_seen_nothing_yet(root: Path) -> None:
    before = set(root.glob("wandb/offline-run-*"))
    assert run(str(root), [*OFFLINE, "tracking.project=paper"]) == 5
    assert before < set(root.glob("wandb/offline-run-*"))


def test_a_larger_sweep_shows_its_new_cells_and_the_overview(
    root: Path, swept: Path, tiny_folder: Path
) -> None:
    same = [*on(swept.parent.parent, tiny_folder), *OFFLINE, "report=true", "top=2"]
    before = folders(root)
    sweep(*same, f"results_root={root.parent}", "guidance.scale=1,2,3", "negatives=empty,own")
    after = folders(root)
    assert len(after) == len(before) + 2
    assert {name for name in before if after[name] != before[name]} == {"overview"}


def test_a_tracker_that_fails_never_stops_a_sweep_and_goes_on_from_there(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    whole, calls = wandb.init, 0

    def breaks(**settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise ConnectionError("no route to wandb")
        return whole(**settings)

    monkeypatch.setattr(wandb, "init", breaks)
    rows = sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2", *OFFLINE)
    root = tmp_path / "results" / "study"
    assert len(rows) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "tracking failed (ConnectionError: no route to wandb)" in said
    assert f"python -m cfg_lab.track {root}" in said
    with pytest.raises(SystemExit) as ended:
        main([str(root), *OFFLINE])
    assert ended.value.code == 2
    monkeypatch.undo()
    assert run(str(root), OFFLINE) == 2  # what went through is not repeated
    assert len(folders(root)) == 3


def test_settings_are_nested_as_filters_need_them() -> None:
    flat = {"guidance": "cfg", "guidance.scale": 2, "guidance.schedule": "interval", "seed": 0}
    flat |= {"guidance.schedule.end": 8, "negatives.template": "bare"}
    assert nested(flat) == {
        "guidance": {"option": "cfg", "scale": 2, "schedule": {"option": "interval", "end": 8}},
        "negatives": {"template": "bare"},
        "seed": 0,
    }


def test_what_is_wrong_is_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        run(str(tmp_path / "none"), OFFLINE)
    with pytest.raises(InputError, match=r"track takes tracking=… .* got 'metrics=\[cost\]'"):
        run(str(root), ["metrics=[cost]"])
    with pytest.raises(InputError, match=r"tracking.mode must be one of .* got 'loud'"):
        run(str(root), ["tracking.mode=loud"])
    with pytest.raises(InputError, match=r"tracking\.token_rows must be between 0 and 10,000, got -1"):
        WandbTracker(token_rows=-1)
    assert run(str(root), ["tracking=none"]) == 0


def test_the_command_line(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cfg_lab.track", str(root), *OFFLINE, "tracking.token_rows=0", "--all"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert f"{count(5, 'run')} logged to offline cfg_lab" in done.stdout
    assert not list(root.glob("wandb/*/files/media/table/tokens*"))
