"""Console output in terminals, notebooks and logs."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from cfg_lab.study import progress
from cfg_lab.study.console import fitting_table, open_console
from cfg_lab.study.progress import ProgressBar


def test_in_a_notebook_progress_is_plain_lines_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a kernel sets it for what it starts
    console = open_console(stderr=True)
    with ProgressBar(console, "decoding", 10, "tokens") as bar:
        for _ in range(10):
            bar.advance(1)
    console.print("[bold]done[/]")
    printed = capsys.readouterr()
    assert re.fullmatch(r"decoding 0/10 tokens\ndecoding 10/10 tokens in \d+\.\d s\ndone\n", printed.out)
    assert printed.err == ""


def test_a_terminal_outside_a_notebook_is_used_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert open_console().is_terminal
    assert open_console(stderr=True).stderr


def log() -> tuple[Console, io.StringIO]:
    """A console that is no terminal, and what it prints."""
    output = io.StringIO()
    return Console(file=output, width=100), output


def test_a_log_says_how_work_started_went_on_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 20.0, 40.0, 50.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    console, output = log()
    with ProgressBar(console, "scoring", 4000, "texts") as bar:
        bar.advance(1000)
        bar.advance(1000, saved=500)
        monkeypatch.setattr(progress.time, "monotonic", lambda: 50.0)
        bar.advance(1500)
    assert output.getvalue().splitlines() == [
        "scoring 0/4,000 texts",
        "scoring 2,000/3,500 texts, 50 per second, about 30 s left",
        "scoring 3,500/3,500 texts in 50.0 s",
    ]


def test_a_log_says_where_work_stopped() -> None:
    console, output = log()

    def work_that_fails() -> None:
        with ProgressBar(console, "tracking", 25, "runs") as bar:
            bar.advance(3)
            raise KeyError

    with pytest.raises(KeyError):
        work_that_fails()
    assert re.search(r"\ntracking 3/25 runs stopped after \d+\.\d s\n$", output.getvalue())


def test_a_table_leaves_out_the_metrics_that_do_not_fit_and_names_them() -> None:
    columns = [f"a_metric_with_a_long_name_{letter}" for letter in "abc"]
    row: dict[str, Any] = {"texts": 6}
    for column in columns:
        row |= {column: 0.5, f"{column}_low": 0.25, f"{column}_high": 0.75, f"{column}_n": 6}
    console, output = log()
    console.print(fitting_table([{"guidance.scale": "2"}], [row], columns, console))
    printed = output.getvalue()
    assert columns[0] in printed.splitlines()[1]
    assert columns[2] not in printed.splitlines()[1]
    assert max(map(len, printed.splitlines())) <= 100
    assert f"summary.parquet also has {columns[2]}" in " ".join(printed.split())
    assert "[0.25, 0.75]" in printed


def test_a_long_label_in_chinese_is_folded_and_the_columns_stay_aligned() -> None:
    phrases = (
        "压抑而又沉闷的气氛、令人失望透顶的结局、刻薄的讽刺与嘲笑、无聊到让人打瞌睡的情节、充满敌意的邻居"
    )
    row = {"texts": 6, "a": 0.5, "a_low": 0.25, "a_high": 0.75, "a_n": 6}
    console, output = log()
    console.print(
        fitting_table(
            [{"negatives.phrases": phrases}, {"negatives.phrases": "冷漠"}], [row] * 2, ["a"], console
        )
    )
    lines = [line for line in output.getvalue().splitlines() if line.startswith("│")]
    assert "".join(line.split("│")[1].strip() for line in lines) == f"{phrases}冷漠"
    assert len({cell_len(line) for line in lines}) == 1


def test_a_metric_that_is_missing_for_some_texts_shows_its_own_n() -> None:
    nan = float("nan")
    row = {"texts": 4, "a": 0.5, "a_low": 0.1, "a_high": 0.9, "a_n": 4}
    row |= {"b": 0.25, "b_low": nan, "b_high": nan, "b_n": 1, "c": nan, "c_low": nan, "c_high": nan, "c_n": 0}
    output = io.StringIO()
    console = Console(file=output, width=100)
    console.print(fitting_table([{"guidance.scale": "2"}], [row], ["a", "b", "c"], console))
    printed = output.getvalue()
    assert "nan" not in printed
    assert "[0.1, 0.9]" in printed
    assert printed.count("n = ") == printed.count("n = 1") == 1
    assert printed.count("no score") == 1
