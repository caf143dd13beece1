"""The settings of a recommendation, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cfg_lab.errors import InputError
from cfg_lab.options import option_names
from cfg_lab.search.proposals import SearchSettings
from cfg_lab.search.space import Interval
from cfg_lab.study.arguments import check_count

KEYS = ("rules", "scales", "limits", "trials", "batch", "search_prompts")
"""Keys of conf/choose.yaml that are attributes of `ChooseSettings`."""


@dataclass(frozen=True, kw_only=True)
class ChooseSettings:
    """What a recommendation is searched among. The keys of conf/choose.yaml have the same names.

    Attributes:
        rules: options of conf/guidance.
        scales: smallest and largest scale.
        limits: limits that a setting must keep, such as "perplexity<=1.5x".
        trials: largest number of settings that are tried.
        batch: number of settings that are decoded together.
        search_prompts: number of prompts of the selection half on which settings are tried.
        seed: seed of the search.

    Raises:
        InputError: a value is wrong.
    """

    rules: Sequence[str]
    scales: Sequence[float]
    limits: Sequence[str]
    trials: int
    batch: int
    search_prompts: int
    seed: int = 0

    def __post_init__(self) -> None:
        names = option_names("guidance")
        rules = _items(self.rules)
        if not rules or not set(map(str, rules)) <= set(names):
            raise InputError(f"rules must be a list of some of {', '.join(names)}, got {self.rules!r}")
        scales = _items(self.scales) or []
        if len(scales) != 2 or not all(type(scale) in (int, float) for scale in scales):
            raise InputError(
                f"scales must be the smallest and the largest scale, such as [1,5], got {self.scales!r}"
            )
        _ = self.interval
        limits = _items(self.limits)
        if limits is None or not all(isinstance(limit, str) for limit in limits):
            raise InputError(f'limits must be a list such as ["perplexity<=1.5x"], got {self.limits!r}')
        for name in ("trials", "batch", "search_prompts"):
            check_count(name, getattr(self, name), 1)

    @property
    def interval(self) -> Interval:
        """The scales as a parameter of the search."""
        low, high = self.scales
        try:
            return Interval(key="scale", low=float(low), high=float(high))
        except InputError:
            raise InputError(
                f"scales must be two numbers, the smaller one first, such as [1,5], got {self.scales!r}"
            ) from None

    @property
    def proposals(self) -> SearchSettings:
        """How the search proposes settings."""
        return SearchSettings(seed=self.seed, batch=self.batch, startup=2 * self.batch)


def _items(value: object) -> list[Any] | None:
    """The items of a list; None if the value is no list."""
    return list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else None


def settings_of(values: Mapping[str, Any]) -> ChooseSettings:
    """The settings in the values of conf/choose.yaml.

    Raises:
        InputError: a value is wrong.
    """
    return ChooseSettings(**{key: values[key] for key in KEYS}, seed=values["seed"])
