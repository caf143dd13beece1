"""Progress of long work: a bar with rate and time left, or a line now and then where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.0f} {task.fields['unit']}/s", style="cyan")


class ProgressBar:
    """A progress bar as a context manager.

    Args:
        what: "decoding".
        total: units of work; may be corrected downwards as it goes.
        unit: "tokens".
    """

    def __init__(self, console: Console, what: str, total: int, unit: str) -> None:
        self.console, self.what, self.unit = console, what, unit
        self.begun = self.said = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=60,
        )
        self.task = self.progress.add_task(what, total=total, unit=unit, note="")

    def __enter__(self) -> ProgressBar:
        self.progress.start()
        if not self.console.is_terminal:
            self._say("")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.progress.stop()

    def advance(self, done: int, *, saved: int = 0, note: str | None = None) -> None:
        """`done` units more are done; `saved` ones turned out not to be needed."""
        task = self.progress.tasks[0]
        total = (task.total or 0) - saved
        self.progress.update(
            self.task, advance=done, total=total, note=task.fields["note"] if note is None else note
        )
        now = time.monotonic()
        if not self.console.is_terminal and now - self.said > 30:
            self.said = now
            rate = task.completed / (now - self.begun)
            left = (total - task.completed) / rate if rate else 0
            self._say(f", {rate:.0f} a second, about {left:.0f} s left")

    def _say(self, speed: str) -> None:
        task = self.progress.tasks[0]
        self.console.print(
            f"{self.what} {task.completed:,.0f}/{task.total:,.0f} {self.unit}{speed}", highlight=False
        )
