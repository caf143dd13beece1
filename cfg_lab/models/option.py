"""Takes the default arguments of `load_model` from the options of conf/model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import yaml

from cfg_lab import options
from cfg_lab.errors import InputError

LOAD_MODEL = "cfg_lab.models.load_model"
"""The `_target_` of most options."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def with_option_defaults(load: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate `load_model`: if `name` is an option of conf/model, its YAML file gives the defaults.

    Each argument is taken from the call, else from the YAML file, else from the signature. The signature
    itself does not change. If the YAML file names another function than `load_model` as its `_target_`, that
    function loads the model.
    """
    parameters = inspect.signature(load).parameters

    @wraps(load)
    def load_option(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        explicit = inspect.signature(load).bind(*args, **kwargs).arguments
        target, arguments = option_call(explicit)
        if target != LOAD_MODEL:
            module, _, function = target.rpartition(".")
            return getattr(import_module(module), function)(**arguments)
        if unknown := sorted(set(arguments) - set(parameters)):
            raise InputError(
                f"conf/model/{explicit['name']}.yaml sets {', '.join(unknown)}, but the keys of a model are "
                f"{', '.join(parameters)}"
            )
        plain_load: Any = load
        return plain_load(**arguments)

    return load_option


def option_call(explicit: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The function that loads a model, as a dotted path, and its arguments.

    If `explicit["name"]` is an option of conf/model, the YAML file of the option gives the arguments that are
    missing in `explicit`. If the file has a value `name`, this value replaces `explicit["name"]`. If the new
    name is another option of conf/model, its YAML file is used in the same way.
    """
    arguments = dict(explicit)
    visited: set[str] = set()
    while (name := arguments["name"]) not in visited and name in options.option_names("model"):
        visited.add(name)
        path = options.CONFIG / "model" / f"{name}.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults = {key: value for key, value in values.items() if not key.startswith("_")}
        arguments = {**defaults, **arguments, "name": defaults.get("name", name)}
        target = values.get("_target_", LOAD_MODEL)
        if target != LOAD_MODEL:
            return target, arguments
    return LOAD_MODEL, arguments
