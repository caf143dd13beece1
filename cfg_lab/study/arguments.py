"""Checks the arguments in a config node against the signature of what the node calls.

The classes check the range of a value where a wrong one is likely, and their messages say more. This module
refuses what a class would misread or fail on: unknown arguments, and values of a wrong type. A new class
needs nothing but type annotations.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from cfg_lab.errors import InputError

HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})
"""Keys of a node that are Hydra's, and no arguments."""


def _is_whole(value: Any) -> bool:
    # Settings are columns of the results, which hold numbers of 64 bits.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


_PLAIN_TYPES: Mapping[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number of at most 64 bits", _is_whole),
    float: ("a finite number", _is_number),
    str: ("a text in UTF-8", _is_text),
    NoneType: ("null", lambda value: value is None),
}
"""Types of single values: type -> (the type in words, whether a value is of the type)."""


def check_arguments(key: str, node: Any) -> None:
    """Check every call in a config node: the names of its arguments, and the types of their values.

    Args:
        key: config key of the node, for messages.
        node: the node as dicts, lists and plain values.

    Raises:
        InputError: an argument is unknown, missing or of a wrong type. The message names its key and value.
    """
    if isinstance(node, list):
        for number, item in enumerate(cast("list[Any]", node)):
            check_arguments(f"{key}.{number}", item)
    if isinstance(node, dict):
        values = cast("dict[str, Any]", node)
        for name, value in values.items():
            check_arguments(f"{key}.{name}", value)
        if "_target_" in values:
            _check_call(key, values)


def _check_call(key: str, values: Mapping[str, Any]) -> None:
    """Check the arguments of one call against the signature of what its `_target_` names."""
    called = _resolve(f"{key}._target_", values["_target_"])
    if values["_target_"] == "hydra.utils.get_method":
        _resolve(f"{key}.path", values.get("path"))
    signature, types = parameters(called), _types(called)
    for name, value in values.items():
        if name in HYDRA_KEYS:
            continue
        if name not in signature:
            if any(parameter.kind == parameter.VAR_KEYWORD for parameter in signature.values()):
                continue
            raise InputError(
                f"{key}.{name} is unknown (got {value!r}); {key} has the keys {', '.join(signature)}"
            )
        if not _fits(value, types.get(name, Any)):
            raise InputError(f"{key}.{name} must be {_in_words(types[name])}, got {value!r}")
    for name, parameter in signature.items():
        required = parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
        if required and name not in values and not values.get("_partial_"):
            raise InputError(f"{key}.{name} has no value; set +{key}.{name}=…")


def _resolve(key: str, path: Any) -> Any:
    """Return the class or function that a dotted path names. `key` is the config key of the path."""
    try:
        called: Any = resolve_name(path)
        inspect.signature(called)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{key} must be the dotted path of a class or function, got {path!r}") from error
    return called


def parameters(called: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a function or class, by name.

    A function with `**arguments` passes these arguments to a class. The function's return annotation names
    the class. The parameters of the class are then included in place of `**arguments`.
    """
    signature = dict(inspect.signature(called).parameters)
    plain = {name: value for name, value in signature.items() if value.kind != value.VAR_KEYWORD}
    result = _result_class(called) if len(plain) < len(signature) else None
    return signature if result is None else {**parameters(result), **plain}


def _result_class(called: Any) -> Any:
    """The dataclass that a function returns, by its annotation; None if it returns something else."""
    result = None if isinstance(called, type) else get_type_hints(called).get("return")
    return result if is_dataclass(result) else None


def _types(called: Any) -> dict[str, Any]:
    """The annotated types of the parameters of a function or class: name -> type."""
    source = called
    if isinstance(called, type) and not is_dataclass(called):
        source = cast("Any", called).__init__
    try:
        types = get_type_hints(source)
    except (NameError, TypeError):  # a type that is imported for type checkers only
        return {}
    result = _result_class(called)
    return types if result is None else {**_types(result), **types}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a plain value or a node of a config can be an argument of a type."""
    if kind is Any or kind is object:
        return True
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in inner)
    if kind in _PLAIN_TYPES:
        _, is_of_kind = _PLAIN_TYPES[kind]
        return is_of_kind(value)
    if isinstance(value, dict):
        nodes = cast("dict[str, Any]", value)
        if "_target_" in nodes:
            return True
        if _is_subclass(origin, Mapping):
            # YAML has other keys than texts, such as {1: null}, but names of arguments and roles are texts.
            return all(isinstance(name, str) and _fits(node, inner[1]) for name, node in nodes.items())
        # Several options of one group stand in a mapping by name, also where the argument is a sequence.
        is_list_of_options = _is_subclass(origin, Sequence) and not _is_plain(inner[0])
        return is_list_of_options and all(_fits(node, inner[0]) for node in nodes.values())
    if _is_subclass(origin, Sequence):
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in cast("list[Any]", value))
    return False


def _is_subclass(origin: Any, parent: type) -> bool:
    return isinstance(origin, type) and issubclass(origin, parent)


def _is_plain(kind: Any) -> bool:
    """Whether the values of a type are written in a config as they are, not as a node with a `_target_`."""
    return kind is Any or kind in _PLAIN_TYPES or get_origin(kind) is not None


def _in_words(kind: Any) -> str:
    """A type in words: "a number or null"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if kind in _PLAIN_TYPES:
        description, _ = _PLAIN_TYPES[kind]
        return description
    if _is_subclass(origin, Mapping):
        return (
            f"a mapping from names, each value {_in_words(inner[1])}" if inner[1] is not Any else "a mapping"
        )
    if _is_subclass(origin, Sequence):
        return f"a list, each item {_in_words(inner[0])}" if _is_plain(inner[0]) else "a list of options"
    return "an option with a _target_"


def check_count(key: str, value: object, least: int, most: float = math.inf) -> None:
    """Check a whole number of a config.

    Args:
        key: the config key.
        value: the value.
        least, most: the smallest and the largest right value. `most` is a bound of what can be stored, which
            the message does not name.

    Raises:
        InputError: the value is not a whole number, or it is out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{key} must be a whole number of at least {least}, got {value!r}")
