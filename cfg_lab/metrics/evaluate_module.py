"""Any module of the `evaluate` library as a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from cfg_lab.errors import InputError
from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class EvaluateModule:
    """A metric or measurement of `evaluate`, computed a text at a time.

    Args:
        module: its name on the hub ("exact_match") or the path of a .py file.
        column: which of the values it computes, and what the table calls it.
        arguments: further arguments of its `compute`, the same for every text.

    References are the prompts' own (`reference`); where a module takes some and a prompt has none, the
    score is NaN.
    """

    module: str
    column: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        module = _loaded(self.module)
        wants_reference = "references" in module.features
        scores: list[float] = []
        for text in texts:
            given: dict[str, Any] = {
                "predictions" if "predictions" in module.features else "data": [text.text]
            }
            if wants_reference:
                if text.prompt.reference is None:
                    scores.append(math.nan)
                    continue
                given["references"] = [text.prompt.reference]
            computed: dict[str, Any] = module.compute(**given, **self.arguments)
            scores.append(_value(computed, self.column, self.module))
        return {self.column: scores}


def _value(computed: dict[str, Any], column: str, module: str) -> float:
    if column not in computed:
        raise InputError(
            f"metrics.evaluate.column is {column!r}, but {module} computes {', '.join(map(str, computed))}"
        )
    value = computed[column]
    first = cast("list[Any]", value)[0] if isinstance(value, list) else value  # some give a value a text
    return float(first)


@lru_cache(maxsize=8)
def _loaded(module: str) -> Any:
    import evaluate

    try:
        return evaluate.load(module)
    except Exception as error:  # evaluate and the hub raise many kinds
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"metrics.evaluate.module is {module!r}, which is neither a path of a metric's .py file nor a "
            f"reachable name on the hub: {first}"
        ) from error
