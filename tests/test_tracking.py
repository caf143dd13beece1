"""Trackers log what is on disk, once for each destination. W&B's files are read back by W&B's own tool."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cfg_lab
from cfg_lab.errors import InputError, TrackingError
from cfg_lab.score import run as score
from cfg_lab.study.console import open_console
from cfg_lab.study.formats import count
from cfg_lab.study.store import Store
from cfg_lab.track import CellResult, NoProgress, NoTracker, StudyResult, Tracker, WandbTracker, wandb_tracker
from cfg_lab.track.__main__ import main, run
from cfg_lab.track.mirror import mirror
from cfg_lab.track.wandb_tracker import nested, tables
from tests.cli import environment, on, sweep

OFFLINE = ["tracking=wandb", "tracking.mode=offline"]
GRID = ["guidance.scale=1,2", "negatives=empty,own"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Results of four cells with 24 texts, logged to W&B offline. Not to be changed."""
    folder = tmp_path_factory.mktemp("swept")
    sweep(*on(folder, tiny_folder), *GRID, *OFFLINE, "report=true", "top=2")
    return folder / "results" / "study"


@pytest.fixture
def root(swept: Path, tmp_path: Path) -> Path:
    """A copy of the results that a test may change."""
    return Path(shutil.copytree(swept, tmp_path / "study", symlinks=True))


# Every tracker


@dataclass
class RecordingTracker:
    """Keeps what it is given in memory. `folder` is the name of the folder that it claims to write."""

    destination: str | None = "memory"
    folder: str | None = None
    fails_at: int = 0
    results: list[CellResult | StudyResult] = field(default_factory=list)

    name = "Memory"
    token_rows = 5
    retry_hint = "tracking=memory"

    def local_path(self, results: Path) -> Path | None:
        return results / "memory"

    def log_cell(self, result: CellResult) -> Path | None:
        return self._log(result)

    def log_study(self, result: StudyResult) -> Path | None:
        return self._log(result)

    def open_progress(self, study: str, submission: str, folder: Path) -> NoProgress:
        return NoProgress()

    def _log(self, result: CellResult | StudyResult) -> Path | None:
        if self.fails_at and len(self.results) + 1 == self.fails_at:
            raise RuntimeError("the service is away")
        self.results.append(result)
        return result.folder / "memory" / self.folder if self.folder else None


def log_to(tracker: Tracker, root: Path, **options: Any) -> int:
    return mirror(Store(root), tracker, open_console(), root / "report.html", **options)


def names(tracker: RecordingTracker) -> list[str]:
    """The cells that were logged, "overview" for the study."""
    return [result.cell if isinstance(result, CellResult) else "overview" for result in tracker.results]


def test_each_destination_gets_every_cell_once_and_then_the_study(root: Path) -> None:
    cells = list(pd.read_parquet(root / "summary.parquet")["cell"])
    first, second = RecordingTracker(), RecordingTracker(destination="elsewhere")
    assert log_to(first, root) == 5
    assert sorted(names(first)[:-1]) == sorted(cells)
    assert names(first)[-1] == "overview"
    assert log_to(second, root) == 5
    assert names(second) == names(first)
    for tracker in (first, second):  # neither has forgotten because of the other
        assert log_to(tracker, root) == 0
    assert log_to(first, root, everything=True) == 5
    assert run(str(root), OFFLINE) == 0  # logged by the sweep


def test_a_changed_cell_is_logged_again_with_the_study(root: Path) -> None:
    tracker = RecordingTracker()
    log_to(tracker, root)
    summary = pd.read_parquet(root / "summary.parquet")
    changed = summary["cell"][2]
    (file,) = (root / "tracked").glob(changed)
    record = json.loads(file.read_text())
    record["memory"]["digest"] = "of another state"
    file.write_text(json.dumps(record))
    log_to(tracker, root)
    assert names(tracker)[5:] == [changed]
    score(str(root), ["metrics=[readability]"])
    assert log_to(tracker, root) == 5
    (study,) = [result for result in tracker.results[-5:] if isinstance(result, StudyResult)]
    assert "reading_ease" in study.summary


def test_a_tracker_is_told_the_folders_of_earlier_runs(root: Path) -> None:
    log_to(RecordingTracker(folder="run-1"), root)
    log_to(RecordingTracker(destination="elsewhere", folder="run-2"), root)
    again = RecordingTracker(folder="run-3")
    log_to(again, root, everything=True)
    for result in again.results:
        folders = dict(result.earlier_folders)
        assert folders.pop("offline cfg_lab").startswith("offline-run-")
        assert folders == {"memory": "run-1", "elsewhere": "run-2"}


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"memory": 3}', '{"memory": {"digest": 5}}'])
def test_a_damaged_record_means_that_nothing_was_logged(root: Path, content: str) -> None:
    for file in (root / "tracked").iterdir():
        file.write_text(content)
    tracker = RecordingTracker()
    assert log_to(tracker, root) == 5
    assert log_to(tracker, root) == 0


def test_a_record_of_the_former_format_is_understood(root: Path) -> None:
    """It had one destination: {"digest": …, "destination": …, "folder": …}."""
    for file in (root / "tracked").iterdir():
        ((destination, entry),) = json.loads(file.read_text()).items()
        file.write_text(json.dumps({**entry, "destination": destination}))
    assert run(str(root), OFFLINE) == 0


def test_the_cells_that_were_logged_before_a_failure_are_not_logged_again(root: Path) -> None:
    tracker = RecordingTracker(fails_at=3)
    with pytest.raises(TrackingError, match=r"tracking failed \(RuntimeError: the service is away\)"):
        log_to(tracker, root)
    tracker.fails_at = 0
    assert log_to(tracker, root) == 3
    assert len(set(names(tracker))) == len(names(tracker)) == 5


def test_a_tracker_may_fail_at_any_time(root: Path) -> None:
    class Unreachable(RecordingTracker):
        @property
        def destination(self) -> str:  # W&B asks its service here
            raise OSError("no network")

        @destination.setter
        def destination(self, value: str) -> None: ...

    with pytest.raises(TrackingError, match=r"tracking failed \(OSError: no network\)"):
        log_to(Unreachable(), root)


def test_what_a_tracker_is_given_is_what_is_on_disk(root: Path) -> None:
    tracker = RecordingTracker()
    log_to(tracker, root)
    results, summary = cfg_lab.load_results(root), pd.read_parquet(root / "summary.parquet")
    *cells, study = tracker.results
    rows = {row["cell"]: row for row in summary.to_dict("records")}
    assert sorted(result.cell for result in cells) == sorted(rows)
    for result in cells:
        row = rows[result.cell]
        assert isinstance(result, CellResult)
        assert result.study == "study"
        assert result.settings["guidance.scale"] == row["guidance.scale"]
        assert {name: result.summary[name] for name in ("length", "length_n")} == {
            "length": row["length"],
            "length_n": row["length_n"],
        }
        assert list(result.texts["text"]) == list(results["text"][results["cell"] == row["cell"]])
        assert len(result.tokens) <= 5
    assert isinstance(study, StudyResult)
    assert set(study.summary["cell"]) == set(summary["cell"])
    assert study.page == root / "report.html"
    assert study.costs["texts"] == Store(root).costs()[0]["texts"]


def test_no_tracker_logs_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(root.rglob("*"))
    assert log_to(NoTracker(), root) == 0
    assert sorted(root.rglob("*")) == before
    assert run(str(root), ["tracking=none"]) == 0
    assert "0 runs logged to nowhere" in capsys.readouterr().out


def test_commands_and_mirror_know_no_tracker_by_name() -> None:
    package = Path(cfg_lab.__file__).parent
    for name in ("sweep.py", "track/mirror.py", "track/tracker.py"):
        text = (package / name).read_text().lower()
        assert not [word for word in ("wandb", "w&b", "offline") if word in text], name
    assert "wandb" not in (package / "track/__main__.py").read_text()


# Weights & Biases


def folders(root: Path) -> dict[str, Path]:
    """Folders of the offline runs by the last part of the run's id. No id has two."""
    paths = sorted(root.glob("wandb/offline-run-*"))
    by_id = {path.name.rpartition("-")[2]: path for path in paths}
    assert len(by_id) == len(paths)
    return by_id


def inspect(folder: Path, *options: str) -> str:
    (file,) = folder.glob("*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", *options, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def table(folder: Path, name: str) -> pd.DataFrame:
    (file,) = folder.glob(f"files/media/table/{name}*.table.json")
    content = json.loads(file.read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def test_a_cell_is_a_run_with_its_config_metrics_and_texts(swept: Path) -> None:
    results, summary = cfg_lab.load_results(swept), pd.read_parquet(swept / "summary.parquet")
    runs = folders(swept)
    assert set(runs) == {*summary["cell"], "overview"}
    for row in summary.to_dict("records"):
        logged = json.loads(inspect(runs[row["cell"]], "--summary"))
        assert logged["run_id"] == f"study-{row['cell']}"
        assert logged["name"] == f"negatives {row['negatives']}, scale {row['guidance.scale']}"
        assert logged["config"]["guidance"]["scale"] == row["guidance.scale"] == logged["summary"]["scale"]
        assert logged["config"]["negatives"]["option"] == row["negatives"]
        for metric in ("perplexity", "distinct_1", "length"):
            for name in (metric, f"{metric}_low", f"{metric}_high", f"{metric}_n"):
                assert logged["summary"][name] == pytest.approx(row[name])
        texts = table(runs[row["cell"]], "texts")
        expected = results[results["cell"] == row["cell"]]
        assert list(texts["text"]) == list(expected["text"])
        assert list(texts["perplexity"]) == pytest.approx(list(expected["perplexity"]))


def test_the_token_table_is_the_trace(swept: Path) -> None:
    results = cfg_lab.load_results(swept)
    for cell, texts in results.groupby("cell"):
        tokens = table(folders(swept)[str(cell)], "tokens")
        assert list(tokens["token"]) == [piece for pieces in texts["pieces"] for piece in pieces]
        guided = [value for values in texts["trace_guided"] for value in values]
        positive = [value for values in texts["trace_positive"] for value in values]
        assert list(tokens["guided"]) == pytest.approx(guided, abs=1e-4)
        assert list(tokens["moved"]) == pytest.approx(
            [after - before for after, before in zip(guided, positive, strict=True)], abs=2e-4
        )
        log_probs = tokens["likeliest guided"].str.count(r" -?\d+\.\d\d(,|$)")
        assert set(log_probs) == {2}  # as many as top=2 keeps


def test_metrics_are_curves_over_the_scale_and_interval_ends_make_no_charts(swept: Path) -> None:
    runs = folders(swept)
    del runs["overview"]
    for folder in runs.values():
        records = [json.loads(line) for line in inspect(folder).splitlines()]
        (header,) = [record["run"] for record in records if record["type"] == "run"]
        assert (header["run_group"], header["job_type"]) == ("study", "cell")
        metrics = {record["metric"]["name"]: record["metric"] for record in records if "metric" in record}
        assert metrics["perplexity"]["step_metric"] == "scale"
        assert not metrics["perplexity"]["options"].get("hidden")
        assert all(metrics[f"perplexity_{end}"]["options"]["hidden"] for end in ("low", "high", "n"))


def test_the_overview_has_tables_figures_page_and_cost(swept: Path) -> None:
    overview = folders(swept)["overview"]
    summary = pd.read_parquet(swept / "summary.parquet").set_index("cell")
    logged = table(overview, "summary").set_index("cell")
    assert set(logged.index) == set(summary.index)
    assert list(logged["perplexity"]) == pytest.approx(list(summary.loc[logged.index, "perplexity"]))
    comparisons = table(overview, "comparisons")
    assert set(comparisons["metric"]) == {"perplexity", "distinct_1"}
    assert comparisons["p_holm"].between(0, 1).all()
    (page,) = overview.glob("files/media/html/page*.html")
    assert page.read_text() == (swept / "report.html").read_text()
    figures = {path.name.rpartition("_0_")[0] for path in overview.glob("files/media/images/figures/*.png")}
    assert figures == {"perplexity", "distinct_1", "perplexity against distinct_1"}
    (cost,) = Store(swept).costs()
    costs = json.loads(inspect(overview, "--summary"))["summary"]
    assert costs["tokens_per_second"] == pytest.approx(cost["tokens"] / cost["seconds"])
    assert costs["peak_memory"] == cost["peak_memory"]


def test_offline_runs_of_changed_cells_are_replaced(root: Path) -> None:
    before = folders(root)
    assert run(str(root), OFFLINE) == 0
    assert folders(root) == before
    score(str(root), ["metrics=[readability]"])
    assert run(str(root), OFFLINE) == 5
    after = folders(root)  # checks that no id has two folders
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    summary = pd.read_parquet(root / "summary.parquet").set_index("cell")
    logged = table(after.pop("overview"), "summary").set_index("cell")
    for cell, folder in after.items():
        value = json.loads(inspect(folder, "--summary"))["summary"]["reading_ease"]
        assert value == pytest.approx(summary["reading_ease"][cell])
        assert value == pytest.approx(logged["reading_ease"][cell])
    assert run(str(root), OFFLINE, everything=True) == 5
    assert set(folders(root)) == set(before)


def test_an_offline_run_gives_way_to_an_online_run_of_its_project(root: Path) -> None:
    """Else `wandb sync` would upload both under one id. Runs of other projects stay."""
    result = cell_result(root)
    offline = [root / "wandb" / f"offline-run-{number}" for number in (1, 2, 3)]
    for folder in offline:
        folder.mkdir()
    earlier = {
        "offline cfg_lab": "offline-run-1",
        "offline paper": "offline-run-2",
        "memory": "offline-run-3",
    }
    tracker = WandbTracker(mode="online")
    tracker._remove_replaced(replace(result, earlier_folders=earlier), None)
    assert [folder.exists() for folder in offline] == [False, True, True]
    tracker._remove_replaced(replace(result, earlier_folders=earlier), offline[1])
    assert offline[1].exists()


def cell_result(root: Path, **changes: Any) -> CellResult:
    tracker = RecordingTracker()
    log_to(tracker, root)
    result = tracker.results[0]
    assert isinstance(result, CellResult)
    return replace(result, **changes)


HOSTILE_FOLDERS = [
    "{victim}",
    "../../victim",
    "..",
    ".",
    5,
    None,
    "offline-run-x/../../..",
    "offline-run-link",
]


@pytest.mark.parametrize("hostile", [HOSTILE_FOLDERS[:5], HOSTILE_FOLDERS[3:]])
@pytest.mark.parametrize("former_format", [True, False])
def test_nothing_but_an_offline_run_of_this_folder_is_ever_removed(
    hostile: list[Any], former_format: bool, root: Path
) -> None:
    """The record of earlier runs may say anything: the results folder may come from somebody else."""
    victim = root.parent / "victim"
    victim.mkdir()
    (victim / "work.txt").write_text("mine")
    (root / "wandb" / "offline-run-link").symlink_to(victim, target_is_directory=True)
    for path, folder in zip((root / "tracked").iterdir(), hostile, strict=True):
        name = folder.format(victim=victim) if isinstance(folder, str) else folder
        entry = {"digest": "x", "folder": name}
        former = {**entry, "destination": "offline cfg_lab"}
        path.write_text(json.dumps(former if former_format else {"offline cfg_lab": entry}))
    before = set(root.glob("wandb/*"))
    assert run(str(root), OFFLINE) == 5
    assert before < set(root.glob("wandb/*"))
    assert (victim / "work.txt").read_text() == "mine"
    assert len(cfg_lab.load_results(root)) == 24


def test_unusual_names_and_columns_are_accepted(tmp_path: Path, tiny_folder: Path) -> None:
    name = "größe & 100 % " + "x" * 150
    sweep(*on(tmp_path, tiny_folder), f"name='{name}'", "guidance.scale=1", *OFFLINE)
    root = tmp_path / "results" / name
    runs = folders(root)
    assert len(runs) == 2
    del runs["overview"]
    ((cell, folder),) = runs.items()
    results = cfg_lab.load_results(root)
    assert set(results["cell"]) == {cell}
    assert list(table(folder, "texts")["text"]) == list(results["text"])
    mixed = pd.DataFrame({"a": [1, "x"], "b": [True, 0.5], "c": [1, 2.5]})
    assert tables({"mixed": mixed})["mixed"].data == [["1", "True", 1.0], ["x", "0.5", 2.5]]


def test_each_project_gets_all_runs(root: Path) -> None:
    before = set(root.glob("wandb/offline-run-*"))
    assert run(str(root), [*OFFLINE, "tracking.project=paper"]) == 5
    after = set(root.glob("wandb/offline-run-*"))
    assert before < after
    assert len(after) == 10
    assert run(str(root), OFFLINE) == 0


def test_a_larger_sweep_logs_its_new_cells_and_the_overview(
    root: Path, swept: Path, tiny_folder: Path
) -> None:
    same = [*on(swept.parent.parent, tiny_folder), *OFFLINE, "report=true", "top=2"]
    before = folders(root)
    sweep(*same, f"results_root={root.parent}", "guidance.scale=1,2,3", "negatives=empty,own")
    after = folders(root)
    assert len(after) == len(before) + 2
    assert {name for name in before if after[name] != before[name]} == {"overview"}


def test_a_tracker_that_fails_never_stops_a_sweep(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    init, calls = wandb.init, 0

    def fails_from_the_second_call_on(**settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise ConnectionError("no route to wandb")
        return init(**settings)

    monkeypatch.setattr(wandb, "init", fails_from_the_second_call_on)
    rows = sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2", *OFFLINE)
    root = tmp_path / "results" / "study"
    assert len(rows) == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "tracking failed (ConnectionError: no route to wandb)" in printed
    hint = "tracking=wandb (without a network: tracking.mode=offline)"
    assert f"python -m cfg_lab.track {root} {hint}" in printed
    assert f"W&B {root / 'wandb'}" in printed
    with pytest.raises(SystemExit) as ended:
        main([str(root), *OFFLINE])
    assert ended.value.code == 2
    monkeypatch.undo()
    assert run(str(root), OFFLINE) == 2  # the first cell was logged and is not logged again
    assert len(folders(root)) == 3


def test_settings_are_nested_as_filters_need_them() -> None:
    flat: Mapping[str, Any] = {
        "guidance": "cfg",
        "guidance.scale": 2,
        "guidance.schedule": "interval",
        "guidance.schedule.end": 8,
        "negatives.template": "bare",
        "seed": 0,
    }
    assert nested(flat) == {
        "guidance": {"option": "cfg", "scale": 2, "schedule": {"option": "interval", "end": 8}},
        "negatives": {"template": "bare"},
        "seed": 0,
    }
    assert doctest.testmod(wandb_tracker) == (0, 1)


def test_a_wrong_value_is_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        run(str(tmp_path / "none"), OFFLINE)
    with pytest.raises(InputError, match=r"track takes tracking=… .* got 'metrics=\[cost\]'"):
        run(str(root), ["metrics=[cost]"])
    with pytest.raises(InputError, match=r"tracking.mode must be one of .* got 'loud'"):
        run(str(root), ["tracking.mode=loud"])
    with pytest.raises(InputError, match=r"tracking\.token_rows must be between 0 and 10,000, got -1"):
        WandbTracker(token_rows=-1)


def test_the_hint_after_an_error_names_the_project() -> None:
    hint = WandbTracker(project="my paper", entity="us").retry_hint
    assert hint.startswith("tracking=wandb 'tracking.project=my paper' tracking.entity=us (without")


def test_the_command_line(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cfg_lab.track", str(root), *OFFLINE, "tracking.token_rows=0", "--all"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert f"{count(5, 'run')} logged to offline cfg_lab" in done.stdout
    assert f"W&B   {root / 'wandb'}" in done.stdout
    assert not list(root.glob("wandb/*/files/media/table/tokens*"))
