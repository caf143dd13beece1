"""Trackers log the progress of a sweep. The files are read back by the tools of the services."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import wandb

from cfg_lab.track import NoProgress, NoTracker, TensorBoardTracker, Tracker, WandbTracker
from cfg_lab.track.progress import SafeProgressLog, open_progress
from tests.cli import environment
from tests.test_tracking import RecordingTracker, inspect

VALUES = {
    "texts_done": 3.0,
    "texts_total": 40.0,
    "tokens_per_second": 70.5,
    "workers_running": 2.0,
    "shards_waiting": 9.0,
    "shards_failed": 0.0,
}
FOLLOW = """
import sys, time
from cfg_lab.track import TensorBoardTracker, WandbTracker
from cfg_lab.track.progress import open_progress
kind, folder, began, first, stop = sys.argv[1:]
tracker = TensorBoardTracker() if kind == "tensorboard" else WandbTracker(mode="offline")
log = open_progress(tracker, "my study", "2026-08-01 12:00", __import__("pathlib").Path(folder), float(began))
for done in (int(first), int(first) + 1):
    log.log({"texts_done": done, "texts_total": 40})
if stop == "close":
    log.close()
else:
    sys.stdout.write("logged\\n")
    sys.stdout.flush()
    time.sleep(600)
"""
"""A process that follows a submission: kind of tracker, folder, begin, first number of texts, how it ends."""


def follow(kind: str, folder: Path, began: float, first: int, *, killed: bool = False) -> None:
    """Log two moments in a process of its own, which closes the log or is killed."""
    command = [
        sys.executable,
        "-W",
        "error::UserWarning",
        "-c",
        FOLLOW,
        kind,
        str(folder),
        str(began),
        str(first),
    ]
    own = {
        name: value for name, value in environment().items() if name != "WANDB_SERVICE"
    }  # not the tests' own
    with subprocess.Popen(
        [*command, "sleep" if killed else "close"], stdout=subprocess.PIPE, env=own, text=True
    ) as process:
        assert process.stdout is not None
        if killed:
            assert process.stdout.readline() == "logged\n"
            process.kill()
    assert killed or process.returncode == 0


def logged_to_wandb(root: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """The only offline run: its records of the run by kind, and all values that were logged."""
    (folder,) = root.glob("wandb/offline-run-*")
    records = [json.loads(line) for line in inspect(folder).splitlines()]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    (header,) = [record["run"] for record in records if record["type"] == "run"]
    metrics = {
        record["metric"].get("name") or record["metric"]["glob_name"]: record["metric"]
        for record in records
        if record["type"] == "metric"
    }
    return {"header": header, "metrics": metrics}, history


def logged_to_tensorboard(root: Path) -> dict[str, list[tuple[int, float]]]:
    """Name of a chart -> (step, value) of each point, of all event files of the only run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {file.parent for file in root.rglob("events.out.tfevents.*")}
    points: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.iterdir()):
        events = EventAccumulator(str(file)).Reload()
        for name in events.Tags()["scalars"]:
            points.setdefault(name, []).extend((event.step, event.value) for event in events.Scalars(name))
    return points


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_continues_the_run_of_wandb(killed: bool, tmp_path: Path) -> None:
    """One run folder has all values, so that `wandb sync` cannot lose any."""
    began = time.time() - 100
    other = open_progress(WandbTracker(mode="offline"), "their my study", "x", tmp_path / "other", began)
    other.close()
    follow("wandb", tmp_path, began, 1, killed=killed)
    follow("wandb", tmp_path, began, 3)
    described, history = logged_to_wandb(tmp_path)
    assert [values["texts_done"] for values in history] == [1, 2, 3, 4]
    seconds = [values["seconds"] for values in history]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 100
    header = described["header"]
    assert (header["job_type"], header["run_group"]) == ("progress", "my study")
    assert header["run_id"].startswith("my-study")
    assert described["metrics"]["*"]["step_metric"] == "seconds"


def test_each_submission_has_a_run_of_its_own(tmp_path: Path) -> None:
    for submission in ("first", "first-1", "the first"):
        with open_progress(WandbTracker(mode="offline"), "study", submission, tmp_path, time.time()) as log:
            log.log(VALUES)
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 3


def test_a_line_that_was_cut_off_loses_no_other_line(tmp_path: Path) -> None:
    tracker = WandbTracker(mode="offline")
    for number, tail in enumerate(['\n{"texts_do', "\n[1]", ""]):
        with open_progress(tracker, "study", "one", tmp_path, time.time()) as log:
            log.log({"texts_done": number})
        (file,) = tmp_path.glob("wandb/*.jsonl")
        with file.open("a") as lines:
            lines.write(tail)
    assert [values["texts_done"] for values in logged_to_wandb(tmp_path)[1]] == [0, 1, 2]


def test_a_run_that_wandb_has_resumed_is_not_given_earlier_values_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Online, W&B has them already. A run that was offline before has not."""
    logged: list[Mapping[str, float]] = []
    settings: list[dict[str, Any]] = []

    class OnlineRun:
        id, offline, dir = "study-progress-one", False, str(tmp_path / "run" / "files")
        resumed = False

        def define_metric(self, *_: object, **__: object) -> None: ...

        def log(self, values: Mapping[str, float]) -> None:
            logged.append(values)

        def finish(self) -> None: ...

    def init(**given: Any) -> OnlineRun:
        settings.append(given)
        return OnlineRun()

    with open_progress(WandbTracker(mode="offline"), "study", "one", tmp_path, time.time()) as log:
        log.log({"texts_done": 1})
    monkeypatch.setattr(wandb, "init", init)
    for number, resumed in ((2, False), (3, True)):
        OnlineRun.resumed = resumed
        with open_progress(WandbTracker(mode="online"), "study", "one", tmp_path, time.time()) as log:
            log.log({"texts_done": number})
    assert [values["texts_done"] for values in logged] == [1, 2, 3]
    assert not list(tmp_path.glob("wandb/offline-run-*"))  # `wandb sync` would replace the online run
    assert {given["id"] for given in settings} == {OnlineRun.id}
    assert {given["resume"] for given in settings} == {"allow"}


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_continues_the_run_of_tensorboard(killed: bool, tmp_path: Path) -> None:
    began = time.time() - 100
    follow("tensorboard", tmp_path, began, 1, killed=killed)
    follow("tensorboard", tmp_path, began, 3)
    points = logged_to_tensorboard(tmp_path)
    assert set(points) == {"progress/texts_done", "progress/texts_total"}
    assert [value for _, value in sorted(points["progress/texts_done"], key=lambda p: p[1])] == [1, 2, 3, 4]
    assert all(step >= 100 for step, _ in points["progress/texts_done"])


@pytest.mark.parametrize("tracker", [WandbTracker(mode="offline"), TensorBoardTracker()])
def test_all_finite_values_are_logged_by_name(tracker: Tracker, tmp_path: Path) -> None:
    with open_progress(tracker, "study", "one", tmp_path, time.time() + 1000) as log:
        log.log({**VALUES, "tokens_per_second": float("nan")})
        log.log(VALUES)
    if isinstance(tracker, WandbTracker):
        history = logged_to_wandb(tmp_path)[1]
        points = [{name: value for name, value in of_one.items() if name in VALUES} for of_one in history]
    else:
        charts = logged_to_tensorboard(tmp_path)
        points = [
            {name: charts[f"progress/{name}"][index][1] for name in VALUES if name != "tokens_per_second"}
            for index in (0,)
        ]
        points.append({name: charts[f"progress/{name}"][-1][1] for name in VALUES})
        assert all(step == 0 for chart in charts.values() for step, _ in chart)  # a clock that is ahead
    assert points == [{k: v for k, v in VALUES.items() if k != "tokens_per_second"}, VALUES]


def test_no_tracker_logs_no_progress(tmp_path: Path) -> None:
    for tracker in (NoTracker(), RecordingTracker()):
        with open_progress(tracker, "study", "one", tmp_path, time.time()) as log:
            log.log(VALUES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", ["open", "log", "close"])
def test_an_error_is_one_warning_and_ends_the_logging(fails: str) -> None:
    calls: list[str] = []

    class Failing(NoProgress):
        def log(self, values: Mapping[str, float]) -> None:
            call("log")

        def close(self) -> None:
            call("close")

    def call(name: str) -> None:
        calls.append(name)
        if name == fails:
            raise ConnectionError("no route\nto the service")

    def open_log() -> NoProgress:
        call("open")
        return Failing()

    def log_twice(open_log: Callable[[], NoProgress]) -> None:
        with SafeProgressLog(open_log, "X", 0.0) as log:
            log.log(VALUES)
            log.log(VALUES)

    sentence = r"X no longer logs the progress of the sweep \(ConnectionError: no route\); the sweep goes on"
    with pytest.warns(UserWarning, match=sentence) as caught:
        log_twice(open_log)
    assert len(caught) == 1
    expected = {"open": ["open"], "log": ["open", "log"], "close": ["open", "log", "log", "close"]}
    assert calls == expected[fails]


def test_the_error_of_a_command_is_not_hidden() -> None:
    with pytest.raises(KeyboardInterrupt), SafeProgressLog(NoProgress, "X", 0.0):
        raise KeyboardInterrupt
