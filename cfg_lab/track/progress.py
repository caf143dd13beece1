"""Logs the progress of a sweep on many workers. An error of the tracker never ends the command."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cfg_lab.track.tracker import NoProgress, ProgressLog, Tracker


def open_progress(
    tracker: Tracker, study: str, submission: str, folder: Path, began: float
) -> SafeProgressLog:
    """Begin to log the progress of a sweep, or go on with it if an earlier process has begun.

    One process at a time may log the progress of a submission.

    Args:
        study: name of the study.
        submission: id of the submission. Each has a run of its own.
        folder: the results folder.
        began: when the submission began, in seconds since 1970 (`time.time`).
    """
    return SafeProgressLog(lambda: tracker.open_progress(study, submission, folder), tracker.name, began)


class SafeProgressLog:
    """A progress log that never raises an exception; for a `with` block.

    After the first error it gives one warning and logs nothing more.

    Args:
        open_log: opens the log of a tracker.
        tracker: name of the tracker, for the warning.
        began: when the submission began, in seconds since 1970.
    """

    def __init__(self, open_log: Callable[[], ProgressLog], tracker: str, began: float) -> None:
        self._tracker, self._began = tracker, began
        self._log: ProgressLog = NoProgress()

        def open_it() -> None:
            self._log = open_log()

        self._try(open_it)

    def log(self, values: Mapping[str, float]) -> None:
        """Log numbers of this moment, by name. "seconds" is added: the time since the submission began."""
        self._try(lambda: self._log.log({"seconds": max(0.0, time.time() - self._began), **values}))

    def close(self) -> None:
        """Write what is not yet written, and log nothing more."""
        self._try(lambda: self._log.close())
        self._log = NoProgress()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a library or a network can fail in any way
            self._log = NoProgress()
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            warnings.warn(
                f"{self._tracker} no longer logs the progress of the sweep ({reason}); the sweep goes on",
                stacklevel=3,
            )
