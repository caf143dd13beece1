"""Turns values into JSON data. Content addresses (ids that are hashes) are made from this data."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, cast


def canonical(value: Any) -> Any:
    """A value as JSON data: equal data for equal values, and different data for different values.

    A dataclass becomes the name of its class and those fields that differ from their defaults. So old content
    addresses stay valid when a class gains an argument with a default. They do not stay valid when a default
    changes: then the format of the address needs a new version (see `Request.id`). 2.0 and 2 count as equal.
    """
    if is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: canonical(getattr(value, field.name))
            for field in fields(value)
            if field.compare and not _is_default(field, getattr(value, field.name))
        }
        return [class_name(type(value)), changed]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, tuple | list):
        return [canonical(item) for item in cast("list[Any]", value)]
    if isinstance(value, frozenset):
        return sorted(cast("frozenset[Any]", value))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return repr(value)


def class_name(called: Any) -> str:
    """The name of a class or function in ids. The name has no module if the class is from this package.

    A class of this package can therefore move to another module without a change of ids. Names within the
    package are unique. Classes from other packages can have equal names, so their names include the module.
    """
    package = called.__module__.partition(".")[0]
    if package == __name__.partition(".")[0]:
        return called.__qualname__
    return f"{called.__module__}.{called.__qualname__}"


def _is_default(field: Any, value: Any) -> bool:
    """Whether a field of a dataclass has its default value."""
    if field.default is not MISSING:
        return value == field.default
    return field.default_factory is not MISSING and value == field.default_factory()
