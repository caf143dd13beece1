"""Any module of the `evaluate` library as a metric."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, cast

from cfg_lab.errors import InputError, errors_of_libraries
from cfg_lab.metrics.column_info import ColumnInfo, Direction
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class EvaluateModule:
    """A metric or measurement of `evaluate`, computed for each text alone.

    If the module takes references, each text is compared with the references of its prompt. A module that
    takes a list of references for each text, such as "bleu", gets all of them. With other modules the best
    value counts. Without `better` it is not known which value is best, so a text with several references gets
    NaN, and a warning says so. The value is also NaN for a text whose prompt has no reference.

    Args:
        module: the module's name on the hub ("exact_match") or the path of a .py file.
        column: which of the module's values to use, by its name. The column gets the same name.
        arguments: further arguments of the module's `compute`, the same for every text; None has none.
        better: which values are good, "higher" or "lower"; None if neither is. If `better` is not None, the
            page shows the column as an aim of guidance (see `ColumnInfo`).
    """

    version: ClassVar[int] = 2
    module: str
    column: str
    arguments: Mapping[str, Any] | None = None
    better: Direction | None = field(default=None, repr=False)

    @property
    def columns(self) -> Mapping[str, ColumnInfo]:
        return {
            self.column: ColumnInfo(
                meaning=f"{self.column} of {self.module}", better=self.better, languages="those of the module"
            )
        }

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        module = _load_module(self.module)
        return {self.column: [self._score_text(module, text) for text in texts]}

    def _score_text(self, module: Any, text: Text) -> float:
        # A module has one set of features, or a list of sets that it accepts.
        features: Any = module.features
        accepted = cast("list[Any]", features if isinstance(features, list) else [features])
        name = "predictions" if "predictions" in accepted[0] else "data"
        if "references" not in accepted[0]:
            return self._compute(module, {name: [text.text]})
        references = list(text.prompt.references)
        if not references:
            return math.nan
        if any(_is_list(names["references"]) for names in accepted):
            return self._compute(module, {name: [text.text], "references": [references]})
        if len(references) > 1 and self.better is None:
            warnings.warn(
                f"metrics.evaluate: {self.module} takes one reference for each text, and some prompts have "
                "several. Such texts have no score. Set metrics.evaluate.better to higher or lower: then the "
                "best value counts",
                stacklevel=2,
            )
            return math.nan
        best = min if self.better == "lower" else max
        return best(
            self._compute(module, {name: [text.text], "references": [reference]}) for reference in references
        )

    def _compute(self, module: Any, inputs: Mapping[str, Any]) -> float:
        computed: dict[str, Any] = module.compute(**inputs, **(self.arguments or {}))
        if self.column not in computed:
            raise InputError(
                f"metrics.evaluate.column is {self.column!r}, but {self.module} computes "
                f"{', '.join(map(str, computed))}"
            )
        value = computed[self.column]
        # Some modules give a list with one value per text.
        return float(cast("list[Any]", value)[0] if isinstance(value, list) else value)


def _is_list(feature: Any) -> bool:
    """Whether a feature of the datasets library holds a list of values."""
    return isinstance(feature, list) or hasattr(feature, "feature")


@lru_cache(maxsize=8)
def _load_module(module: str) -> Any:
    """Load a module of the `evaluate` library. It stays in memory, so that later calls are fast."""
    import evaluate

    with errors_of_libraries(
        f"metrics.evaluate.module is {module!r}, which is neither a path of a metric's .py file nor a "
        "reachable name on the hub"
    ):
        return evaluate.load(module)
