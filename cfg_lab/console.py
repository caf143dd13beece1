"""Where programs speak to people."""

from __future__ import annotations

import os

from rich.console import Console


def open_console(*, stderr: bool = False) -> Console:
    """The terminal, or plain lines where there is none: in a pipe and in a notebook.

    A notebook's `!` looks like a terminal but keeps every movement of a bar as a line, and what comes from
    stderr a notebook shows as an alarm: so there all goes to stdout.
    """
    notebook = "JPY_PARENT_PID" in os.environ  # what a kernel starts with
    return Console(
        stderr=stderr and not notebook, force_jupyter=False, force_terminal=False if notebook else None
    )
