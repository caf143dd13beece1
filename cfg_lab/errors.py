"""Errors that the user can correct. The commands print them as one sentence, without a traceback."""


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
