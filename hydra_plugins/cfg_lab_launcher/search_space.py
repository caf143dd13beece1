"""Reads the space of a search from overrides in Hydra's grammar.

| override | parameter |
|---|---|
| `a,b`, `choice(a,b)`, `glob(*)` | one of several options, without an order |
| `range(1,5)`, also with a step or with `float(…)` | one of several numbers, the end left out as in a grid |
| `interval(1,5)` | a number between two ends |
| `int(interval(1,5))`, `tag(int,interval(1,5))` | a whole number between two ends |
| `tag(log,interval(0.1,10))`, also with `int` | as above, with an even logarithm |
| `sort(…)` | as without it, for options in another order |

`shuffle(…)` and other tags are refused: they mean nothing to a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep

from cfg_lab.errors import InputError
from cfg_lab.search.space import Choice, Interval, Parameter, Steps

SEARCH_KEYS = ("objective", "trials")
"""Config keys of a search that are no settings of its cells."""


def read_space(overrides: Sequence[Override]) -> tuple[tuple[Parameter, ...], tuple[str, ...]]:
    """The parameters of a search, and the overrides that all trials share.

    A later override of the same key replaces an earlier one.

    Raises:
        InputError: a form of the grammar means nothing to a search.
    """
    by_key: dict[str, Parameter | str] = {}
    for override in overrides:
        key = override.get_key_element()
        by_key.pop(key, None)
        if override.is_sweep_override():
            if override.key_or_group in SEARCH_KEYS:
                raise InputError(
                    f"{override.input_line!r} gives {key} several values, but a search has one; a list of "
                    f"objectives is written in brackets: 'objective=[+sentiment,-perplexity]'"
                )
            by_key[key] = _parameter(key, override)
        elif override.key_or_group not in SEARCH_KEYS:
            by_key[key] = (
                str(override.input_line)
                if override.is_delete()
                else f"{key}={override.get_value_element_as_str()}"
            )
    space = tuple(value for value in by_key.values() if not isinstance(value, str))
    return space, tuple(value for value in by_key.values() if isinstance(value, str))


def _parameter(key: str, override: Override) -> Parameter:
    given = override.input_line
    value = override.value()
    tags = sorted(value.tags) if isinstance(value, Sweep) else []
    shuffled = isinstance(value, ChoiceSweep | RangeSweep) and value.shuffle
    if shuffled:
        raise InputError(f"{given!r} has shuffle, but a search has no order of its trials; leave shuffle out")
    known = ("int", "log") if isinstance(value, IntervalSweep) else ()
    if wrong := [tag for tag in tags if tag not in known]:
        raise InputError(
            f"{given!r} has the tag {wrong[0]}; the tags of a search are int and log, both for interval(…)"
        )
    if isinstance(value, IntervalSweep):
        low, high = cast("float", value.start), cast("float", value.end)
        whole = "int" in tags or (isinstance(low, int) and isinstance(high, int))
        return Interval(key=key, low=low, high=high, whole=whole, log="log" in tags)
    options = list(dict.fromkeys(override.sweep_string_iterator()))
    if not options:
        raise InputError(f"{given!r} has no values; a search needs at least one")
    if isinstance(value, RangeSweep):
        return Steps(key=key, numbers=tuple(sorted(options, key=float)))
    return Choice(key=key, options=tuple(options))
