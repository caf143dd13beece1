"""The device of models for which the user names none."""

from __future__ import annotations

import torch


def default_device() -> torch.device:
    """The GPU that torch uses at present, or the CPU if there is no GPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
