"""Errors that the command line shows as one sentence, without a traceback."""


class InputError(ValueError):
    """Something the user wrote is wrong. The message names the key, the value and what would be right."""


class StoreError(RuntimeError):
    """A results file cannot be read or written. The message names the file and says what to do."""


class TrackingError(RuntimeError):
    """The tracker refused the results or could not be reached. The results are on disk all the same."""
