"""The results folder of a study: results_root/name."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unicodedata import category

from cfg_lab.errors import InputError

_LONGEST_NAME = 200
"""Bytes. Most file systems allow 255, and a folder that is being written has a suffix."""


def study_name(value: Any) -> str:
    """Check the name of a study, which is also the name of a folder in results_root.

    Raises:
        InputError: the value cannot be the name of a folder, or of a folder that a user can find again.
    """
    name = _as_text("name", value)
    problems = {
        "is empty": not name.strip(),
        "begins or ends with a space": name != name.strip(),
        "has a slash or backslash": "/" in name or "\\" in name,
        "begins with a dot": name.startswith("."),
        f"is longer than {_LONGEST_NAME} bytes": len(name.encode()) > _LONGEST_NAME,
    }
    for problem, is_present in problems.items():
        if is_present:
            raise InputError(
                f"name must be the name of a folder in results_root, such as name=mine; got {name!r}, "
                f"which {problem}"
            )
    return name


def results_folder(results_root: Any, name: str) -> Path:
    """The path of a study's results folder. A leading "~/" of `results_root` is the home folder.

    Raises:
        InputError: `results_root` is not the path of a folder.
    """
    root = _as_text("results_root", results_root)
    if not root.strip():
        raise InputError(f"results_root must be a folder, such as results_root=results; got {root!r}")
    # bash replaces the tilde, other shells do not.
    return (Path(root).expanduser() if root.startswith("~/") else Path(root)) / name


def _as_text(key: str, value: Any) -> str:
    """The value as text. A whole number is a text too, because Hydra reads `name=2026` as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InputError(f"{key} must be a text, got {value!r}; write a number as a text: {key}=\"'2.50'\"")
    # "Cc" are control characters such as a line break, "Cs" are bytes that are not UTF-8.
    if any(category(character) in ("Cc", "Cs") for character in value):
        raise InputError(f"{key} must be a text in UTF-8 without control characters, got {value!r}")
    return value
