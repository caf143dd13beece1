"""Errors that the user can correct. The commands print them as one sentence, without a traceback."""

from collections.abc import Generator
from contextlib import contextmanager


class InputError(ValueError):
    """A value from the user is wrong. The message names the key or argument, the value, and right values."""


class ModelError(RuntimeError):
    """A model cannot decode a request. The message names the model and suggests a remedy."""


class StoreError(RuntimeError):
    """A results file cannot be read or written. The message names the file and says what to do."""


class TrackingError(RuntimeError):
    """A tracker failed or could not be reached. No results are lost: they are on disk.

    A tracker is a service that results are logged to, such as TensorBoard.
    """


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


def reason_of(error: BaseException) -> str:
    """The first line of an error's message. The second line too, if the first line ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".:")
    return f"{type(error).__name__} {line}" if isinstance(error, LookupError) else line
