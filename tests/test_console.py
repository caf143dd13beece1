"""What programs say, where it is read."""

from __future__ import annotations

import pytest

from cfg_lab.study.console import open_console
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
    said = capsys.readouterr()
    assert said.out == "decoding 0/10 tokens\ndone\n"
    assert said.err == ""


def test_elsewhere_a_terminal_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert open_console().is_terminal
    assert open_console(stderr=True).stderr
