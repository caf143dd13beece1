"""Keeping packaged models in memory, for a process that runs many short commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from cfg_lab.models.language_model import LanguageModel
from cfg_lab.models.packaged import PACKAGED

Arguments = ParamSpec("Arguments")

_kept: dict[str, LanguageModel] | None = None
"""The packaged models of this process, by the arguments of `load_model`; None if they are not kept."""


def keep_packaged_models() -> None:
    """From now on packaged models stay loaded, and equal calls of `load_model` return the same model.

    The files of a packaged model have a checksum. Other models are loaded anew each time, because their files
    can change.
    """
    global _kept
    _kept = {}


def keep_packaged(load: Callable[Arguments, LanguageModel]) -> Callable[Arguments, LanguageModel]:
    """Decorate `load_model` for `keep_packaged_models`."""

    @wraps(load)
    def load_or_take(*args: Arguments.args, **kwargs: Arguments.kwargs) -> LanguageModel:
        arguments: dict[str, Any] = dict(kwargs)
        name = args[0] if args else arguments.get("name")
        from_files = arguments.get("adapter") is not None or arguments.get("chat_template") is not None
        if _kept is None or name not in PACKAGED or from_files:
            return load(*args, **kwargs)
        key = json.dumps([args, arguments], sort_keys=True, default=str)
        if key not in _kept:
            _kept[key] = load(*args, **kwargs)
            _kept[key].stays_loaded = True
        return _kept[key]

    return load_or_take
