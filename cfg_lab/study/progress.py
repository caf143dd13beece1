"""Progress of long work: a bar in a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cfg_lab.study.formats import three_digits

_SECONDS_BETWEEN_LINES = 30


class _Rate(ProgressColumn):
    """A column of a progress bar that shows the units per second."""

    def render(self, task: Task) -> Text:
        return Text(
            f"{three_digits(task.finished_speed or task.speed or 0)} {task.fields['unit']}/s", style="cyan"
        )


class ProgressBar:
    """Shows the progress of work inside a `with` block.

    In a terminal it is a bar with rate and time left. Elsewhere it prints a line at the start, a line every
    30 seconds, and a line at the end that says how much was done and how long the work took.

    Args:
        console: where to print.
        activity: what is being done, such as "decoding".
        total: number of units of work. `advance` can lower this number.
        unit: name of the units in the plural, such as "tokens".
    """

    def __init__(self, console: Console, activity: str, total: int, unit: str) -> None:
        self.console, self.activity, self.unit = console, activity, unit
        self.start_time = self.last_line_time = time.monotonic()
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
        self.task = self.progress.add_task(f"{activity:8}", total=total, unit=unit, note="")

    def __enter__(self) -> ProgressBar:
        self.progress.start()
        self._print_line("")
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()
        end = "in" if error is None else "stopped after"
        self._print_line(f" {end} {time.monotonic() - self.start_time:.1f} s")

    def advance(self, done: int, *, saved: int = 0, note: str | None = None) -> None:
        """Count finished units.

        Args:
            done: number of units that were finished since the last call.
            saved: number of units that turned out to be unnecessary; they are subtracted from the total.
            note: text to show beside the bar from now on; None keeps the present text.
        """
        task = self.progress.tasks[0]
        total = (task.total or 0) - saved
        self.progress.update(
            self.task, advance=done, total=total, note=task.fields["note"] if note is None else note
        )
        now = time.monotonic()
        if now - self.last_line_time > _SECONDS_BETWEEN_LINES:
            self.last_line_time = now
            rate = task.completed / (now - self.start_time)
            left = (total - task.completed) / rate if rate else 0
            self._print_line(f", {three_digits(rate)} per second, about {left:.0f} s left")

    def _print_line(self, ending: str) -> None:
        """Print a line that says how much is done; print nothing if a terminal shows a bar."""
        if self.console.is_terminal:
            return
        task = self.progress.tasks[0]
        done = f"{self.activity} {task.completed:,.0f}/{task.total:,.0f} {self.unit}"
        self.console.print(f"{done}{ending}", highlight=False)
