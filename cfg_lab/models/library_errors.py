"""Errors of transformers and other libraries, as sentences for the user."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from cfg_lab.errors import InputError


@contextmanager
def errors_of_libraries(subject: str) -> Generator[None]:
    """Raise every error of a `with` block as an InputError: "<subject>: <the library's reason>".

    Libraries raise errors of many classes for files that are broken or missing: OSError, RuntimeError,
    KeyError, SafetensorError and others. An InputError passes through unchanged.

    Args:
        subject: what failed and what it belongs to, such as "the weights of model 'x' cannot be loaded".
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{subject}: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """The first line of an error's message; also the second one, if the first one announces it by a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".:")
    return f"{type(error).__name__} {line}" if isinstance(error, LookupError) else line
