"""Errors that the user can correct. The commands print them as one sentence, without a traceback."""


class InputError(ValueError):
    """A value from the user is wrong. The message names the key, the value, and what would be right."""


class ModelError(RuntimeError):
    """A model cannot decode a request. The message names the model and says what may help."""


class StoreError(RuntimeError):
    """A results file cannot be read or written. The message names the file and says what to do."""


class TrackingError(RuntimeError):
    """The tracker failed or could not be reached. Nothing is lost: the results are on disk."""
