"""The folder of an export: it appears complete or not at all, and replaces only an earlier export.

An export is written to a hidden folder beside its place, and renamed at the end. The process that writes the
hidden folder holds a lock on it. The lock ends with the process, so the next export can tell the leftovers of
a killed one from the folder of one that is still being written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from cfg_lab.errors import InputError, StoreError, reason_of

CARD = "README.md"
CSV = "texts.csv"
MARK = "Written by `python -m cfg_lab.export`"
"""A sentence of the data card by which an earlier export is recognised."""

_DESCRIPTIONS = ("dataset_info.json", "state.json")
_SUFFIX = ".draft"


def check_replaceable(target: Path) -> None:
    """Check that an export can take the place `target`: it is free, an empty folder, or an earlier export.

    Raises:
        InputError: something else is there.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"--output: {str(target)!r} is a file; choose a folder")
    names = sorted(path.name for path in target.iterdir())
    card = target / CARD
    if not names:
        return
    if not card.is_file() or MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise InputError(
            f"--output: {str(target)!r} exists and is not an export of this command, so it is not replaced; "
            "choose another folder"
        )
    if foreign := [name for name in names if not _is_ours(name)]:
        raise InputError(
            f"--output: {str(target)!r} also holds {foreign[0]!r}, which an export did not write, so it is "
            "not replaced; move that file away, or choose another folder"
        )


def _is_ours(name: str) -> bool:
    return name in (CARD, CSV, *_DESCRIPTIONS) or (name.startswith("data-") and name.endswith(".arrow"))


@contextmanager
def complete_folder(target: Path) -> Generator[Path]:
    """Give an empty folder to fill in a `with` block, and rename it to `target` at the end.

    An earlier export at `target` is replaced. If the block raises an error, the folder is deleted and
    `target` stays as it was.

    Raises:
        InputError: the folder cannot be made, or something else than an export is at `target`.
        StoreError: the disk is full, or a file cannot be written.
    """
    check_replaceable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(target)
        draft = _draft_beside(target)
        draft.mkdir()
    except OSError as error:
        raise InputError(
            f"--output: {str(target)!r} cannot be written ({error.strerror}); choose another folder"
        ) from error
    lock = os.open(draft, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot lock a folder
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield draft
        _move(draft, target)
    except OSError as error:
        raise not_written(error) from error
    finally:
        os.close(lock)
        shutil.rmtree(draft, ignore_errors=True)


def not_written(error: OSError) -> StoreError:
    """The error for an export that could not be written, for example because the disk is full."""
    return StoreError(
        f"could not write the export ({error.strerror or reason_of(error)}); nothing of it is left: make "
        "room, or choose another folder with --output, then run the same command again"
    )


def _draft_beside(target: Path) -> Path:
    return target.with_name(f".{target.name}-{secrets.token_hex(4)}{_SUFFIX}")


def _move(draft: Path, target: Path) -> None:
    """Rename `draft` to `target`. An earlier export there is moved away first, and then deleted."""
    for path in draft.iterdir():
        with path.open("rb") as opened:
            os.fsync(opened.fileno())
    earlier: list[Path] = []
    try:
        while True:
            try:
                draft.rename(target)  # succeeds if nothing or an empty folder is there
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            check_replaceable(target)
            earlier.append(_draft_beside(target))
            with suppress(FileNotFoundError):  # another export has just moved it away
                target.rename(earlier[-1])
    finally:
        for folder in earlier:
            shutil.rmtree(folder, ignore_errors=True)


def _delete_leftovers(target: Path) -> None:
    """Delete the hidden folders that killed exports to the same place have left."""
    for path in target.parent.glob(f".{escape(target.name)}-*{_SUFFIX}"):
        with suppress(OSError):
            if not any(path.iterdir()):
                continue  # another export has just made it, and locks it before it writes
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer runs
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
