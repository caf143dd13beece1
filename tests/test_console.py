"""Console output in terminals, notebooks and logs."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from cfg_lab.study import progress
from cfg_lab.study.console import fitting_table, open_console
from cfg_lab.study.formats import count
from cfg_lab.study.progress import ProgressBar
from tests.cli import on, sweep


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


@pytest.mark.parametrize("label", ["[rescale]", "[apg,plausible]", "[bold]x", r"a\[b]"])
def test_a_label_is_printed_as_it_is(label: str) -> None:
    row = {"texts": 6, "a": 0.5, "a_low": 0.25, "a_high": 0.75, "a_n": 6}
    console, output = log()
    console.print(fitting_table([{"guidance.modifiers": label}], [row], ["a"], console))
    assert label in output.getvalue()


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


def printed_lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines that a sweep prints before it decodes."""
    sweep(*arguments)
    lines = capsys.readouterr().out.splitlines()
    return lines[: next(number for number, line in enumerate(lines) if line.startswith("decoding"))]


def overrides(folder: Path, model: Path, records: list[dict[str, Any]]) -> list[str]:
    """Overrides of a small study with the prompts that are given as records."""
    path = folder / "written.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return [*on(folder, model), f"prompts.path={path}"]


def test_a_sweep_says_which_phrases_and_weights_it_understood(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phrases = r"ugly:0.8, aspect ratio 16:9, a\, [b]"
    arguments = [*on(tmp_path, tiny_folder), "negatives=custom", f"negatives.phrases='{phrases}'"]
    assert printed_lines(capsys, *arguments) == [
        "study: 1 cell",
        'negative phrases: "ugly" (weight 0.8), "aspect ratio 16:9", "a, [b]"',
    ]


@pytest.mark.parametrize("lists", [1, 4, 5, 7])
def test_of_many_lists_of_phrases_the_first_is_printed(
    lists: int, tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"text": f"Text {n}", "negative": [f"bad:{n + 2}", "dull"]} for n in range(lists)]
    records += [{"text": "One more", "negative": "bad:2, dull"}]  # as the first
    arguments = [*overrides(tmp_path, tiny_folder, records), "negatives=own", "guidance.scale=1,2"]
    lines = [f'negative phrases: "bad" (weight {n + 2}), "dull"' for n in range(lists)]
    if lists > 4:
        lines = [f"{lines[0]}; and {lists - 1} other lists of phrases"]
    assert printed_lines(capsys, *arguments) == ["study: 2 cells", *lines]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["a", "b", "c"], None),
        (["a", "b", "a"], "1 of 3 prompts duplicates an earlier prompt"),
        (["a", "b", "a", "a"], "2 of 4 prompts duplicate earlier prompts"),
    ],
)
def test_a_sweep_and_its_page_say_how_many_prompts_are_duplicates(
    texts: list[str],
    sentence: str | None,
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = overrides(tmp_path, tiny_folder, [{"text": text} for text in texts])
    lines = printed_lines(capsys, *arguments, "negatives=empty", "guidance.scale=1,2", "report=true")
    page = (tmp_path / "results" / "study" / "report.html").read_text()
    prompts = len(set(texts))
    assert f'"distinct_prompts":{prompts},' in page
    if sentence is None:
        assert lines == ["study: 2 cells"]
        assert "duplicate" not in page[: page.index("<script")]
    else:
        assert lines == [
            "study: 2 cells",
            f"{sentence}: intervals and p values count prompts with the same context as one prompt",
        ]
        assert f"{count(len(texts) - prompts, 'duplicate prompt')}: intervals and p values count 2 " in page
